//! The pre-shared keys that this router has agreed with gateways, and the rule by which one is used.
//!
//! **A pair that has had a key never goes back to none.** A gateway with which this router has ever agreed one, or of
//! which the authority log says that it is used with one alone, is used with one alone: who holds back the gateway's
//! ML-KEM key gets no session without it, only a router that says so and asks again. A new gateway under a new
//! identity is another gateway.

use trust::{GatewayRecord, KeyId, Psk};
use zeroize::Zeroizing;

/// Gateways with which a key was agreed at some time; the oldest are forgotten beyond this.
const MAX_PINNED: usize = 64;
/// Tunnel keys (two) times gateways of a lease.
const MAX_KEYS: usize = 16;
const ID_BYTES: usize = 32;
const ENTRY_BYTES: usize = 3 * ID_BYTES;

/// A key with one gateway, by its id.
pub(crate) type Agreement = ([u8; ID_BYTES], Psk);

/// What the router keeps of its agreements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Psks {
    pinned: Vec<[u8; ID_BYTES]>,
    keys: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    wg_pub: [u8; ID_BYTES],
    gateway: [u8; ID_BYTES],
    psk: Psk,
}

/// Whether routers of this configuration agree keys at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PostQuantum {
    /// With each gateway that can.
    On,
    /// With none, whatever was before.
    Off,
}

/// A gateway may be used only with a key, and there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "gateway {0} is used with a post-quantum key alone, and none could be agreed: provisioning does not hand out the \
     gateway's present ML-KEM key"
)]
pub(crate) struct Withheld(KeyId);

impl Psks {
    /// With which key a session of `wg_pub` with a gateway is made; none only where there never was one.
    pub(crate) fn rule(
        &self,
        wg_pub: &[u8; ID_BYTES],
        gateway: &GatewayRecord,
        post_quantum: PostQuantum,
    ) -> Result<Option<Psk>, Withheld> {
        let id = gateway.id();
        let entry = self
            .keys
            .iter()
            .find(|entry| entry.wg_pub == *wg_pub && entry.gateway == id);
        let is_demanded = gateway.post_quantum || self.pinned.contains(&id);
        match (entry, post_quantum) {
            (Some(entry), _) => Ok(Some(entry.psk.clone())),
            (None, PostQuantum::On) if is_demanded => Err(Withheld(KeyId::from(id))),
            (None, _) => Ok(None),
        }
    }

    /// The gateways with which a tunnel key has its pre-shared key: it has one for all its life.
    pub(crate) fn known(&self, wg_pub: &[u8; ID_BYTES]) -> Vec<[u8; ID_BYTES]> {
        let of_key = self.keys.iter().filter(|entry| entry.wg_pub == *wg_pub);
        of_key.map(|entry| entry.gateway).collect()
    }

    /// Takes up what was agreed for a tunnel key.
    pub(crate) fn add(&mut self, wg_pub: &[u8; ID_BYTES], agreed: Vec<Agreement>) {
        for (gateway, psk) in agreed {
            self.pinned.retain(|pinned| *pinned != gateway);
            self.pinned.push(gateway);
            self.keys
                .retain(|entry| entry.wg_pub != *wg_pub || entry.gateway != gateway);
            self.keys.push(Entry {
                wg_pub: *wg_pub,
                gateway,
                psk,
            });
        }
        let surplus = |len: usize, max| len.saturating_sub(max);
        self.pinned.drain(..surplus(self.pinned.len(), MAX_PINNED));
        self.keys.drain(..surplus(self.keys.len(), MAX_KEYS));
    }

    /// Forgets the keys of tunnel keys that are not used any more.
    pub(crate) fn retain(&mut self, wg_pubs: &[[u8; ID_BYTES]]) {
        self.keys.retain(|entry| wg_pubs.contains(&entry.wg_pub));
    }

    /// A count, the pinned gateways, then the entries.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let length = 1 + self.pinned.len() * ID_BYTES + self.keys.len() * ENTRY_BYTES;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.push(u8::try_from(self.pinned.len()).unwrap_or(u8::MAX));
        for gateway in &self.pinned {
            bytes.extend(gateway);
        }
        for entry in &self.keys {
            bytes.extend(entry.wg_pub);
            bytes.extend(entry.gateway);
            bytes.extend(entry.psk.as_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first()?;
        let (pinned, keys) = rest.split_at_checked(usize::from(*count) * ID_BYTES)?;
        let (pinned, _) = pinned.as_chunks::<ID_BYTES>();
        let (keys, []) = keys.as_chunks::<ENTRY_BYTES>() else {
            return None;
        };
        let keys: Option<Vec<Entry>> = keys.iter().map(|entry| entry_of(entry)).collect();
        Some(Self {
            pinned: pinned.to_vec(),
            keys: keys?,
        })
    }
}

fn entry_of(bytes: &[u8]) -> Option<Entry> {
    let (wg_pub, rest) = bytes.split_first_chunk::<ID_BYTES>()?;
    let (gateway, psk) = rest.split_first_chunk::<ID_BYTES>()?;
    Some(Entry {
        wg_pub: *wg_pub,
        gateway: *gateway,
        psk: Psk::from_bytes(psk.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const NEXT: [u8; 32] = [2; 32];

    fn gateway(n: u8, post_quantum: bool) -> GatewayRecord {
        GatewayRecord {
            v: trust::VERSION,
            name: "gw".to_owned(),
            ed25519_pub: [n; 32],
            wg_pub: [n; 32],
            endpoints: Vec::new(),
            pop: "pop1".to_owned(),
            shards: Vec::new(),
            inner: Vec::new(),
            dns: Vec::new(),
            relay: None,
            post_quantum,
        }
    }

    fn psk(n: u8) -> Psk {
        Psk::from_bytes([n; 32])
    }

    fn agreed(n: u8) -> Psks {
        let mut psks = Psks::default();
        psks.add(&KEY, vec![(gateway(n, false).id(), psk(7))]);
        psks
    }

    #[test]
    fn a_pair_that_had_a_key_is_not_used_without_one() {
        let psks = agreed(1);

        let refused = psks.rule(&NEXT, &gateway(1, false), PostQuantum::On);

        assert_eq!(refused, Err(Withheld(KeyId::from(gateway(1, false).id()))));
    }

    #[test]
    fn a_gateway_that_the_log_demands_a_key_of_is_not_used_without_one_from_the_first_time_on() {
        let refused = Psks::default().rule(&KEY, &gateway(1, true), PostQuantum::On);

        assert!(refused.is_err());
    }

    #[test]
    fn a_gateway_that_never_had_one_is_used_without() {
        let other = agreed(1).rule(&KEY, &gateway(2, false), PostQuantum::On);

        assert_eq!(other, Ok(None));
    }

    #[test]
    fn a_key_belongs_to_its_tunnel_key_and_is_used_even_where_no_more_are_agreed() {
        let psks = agreed(1);
        for post_quantum in [PostQuantum::On, PostQuantum::Off] {
            let used = psks.rule(&KEY, &gateway(1, false), post_quantum);
            assert_eq!(used, Ok(Some(psk(7))));
        }

        assert_eq!(psks.known(&KEY), [gateway(1, false).id()]);
        assert!(psks.known(&NEXT).is_empty());
        let off = psks.rule(&NEXT, &gateway(1, true), PostQuantum::Off);
        assert_eq!(off, Ok(None));
    }

    #[test]
    fn what_is_kept_comes_back_and_a_torn_or_longer_file_does_not() {
        let mut psks = agreed(1);
        psks.add(&NEXT, vec![([9; 32], psk(8)), ([10; 32], psk(9))]);
        let bytes = psks.to_bytes();

        assert_eq!(Psks::from_bytes(&bytes), Some(psks));
        for cut in 0..bytes.len() {
            let torn = Psks::from_bytes(&bytes[..cut]);
            let is_whole = cut > 3 * 32 && (cut - 1) % 96 == 0;
            assert_eq!(torn.is_some(), is_whole, "{cut}");
        }
    }

    #[test]
    fn old_tunnel_keys_go_and_pins_stay() {
        let mut psks = agreed(1);

        psks.retain(&[NEXT]);

        assert!(psks.known(&KEY).is_empty());
        assert!(
            psks.rule(&NEXT, &gateway(1, false), PostQuantum::On)
                .is_err()
        );
    }

    #[test]
    fn nothing_grows_without_end_and_debug_shows_no_key() {
        let mut psks = Psks::default();
        for n in 0..200 {
            psks.add(&[n; 32], vec![([n; 32], psk(n))]);
        }

        assert_eq!((psks.pinned.len(), psks.keys.len()), (MAX_PINNED, MAX_KEYS));
        assert!(format!("{:?}", agreed(1)).contains("Psk(secret)"));
    }
}
