//! Who the people are by whose word gateways are believed: the state of the authority in the image, or a later one that people have
//! changed it to. What a server tells of that is judged by the state before; none leads back.

use tracing::{info, warn};
use trust::{Activation, Anchors, Authority};

/// Goes on with the state that was kept, if it is later than the image's.
pub(crate) fn recall(anchors: &mut Anchors, kept: Option<&[u8]>) {
    let text = kept.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let state = text.and_then(|text| Authority::parse(text).ok());
    if let Some(state) = state.filter(|state| state.epoch() > anchors.people.epoch()) {
        anchors.people = state;
    }
}

/// Takes the changes that hold, in their order, each kept before it counts. What does not hold changes nothing: a server can withhold a
/// change, and make none.
pub(crate) fn follow<E: std::fmt::Display>(
    anchors: &mut Anchors,
    changes: &[Activation],
    now: u64,
    mut keep: impl FnMut(&Authority) -> Result<(), E>,
) {
    for change in changes {
        let state = match anchors.verify_change(change, now) {
            Ok(state) => state.into_inner(),
            Err(error) => return warn!(%error, "a new state of the authority is refused"),
        };
        if let Err(error) = keep(&state) {
            return warn!(%error, "a new state of the authority is not used, since it could not be kept");
        }
        info!(epoch = state.epoch(), "people have changed who they are");
        anchors.people = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "epoch 3\nperson alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea\nrule authority alice self-approve\n";

    fn anchors() -> Anchors {
        let log = |origin: &str, seed| {
            let log = trust::LogSigner::from_seed(origin, &[seed; 32]).unwrap();
            let witness = trust::Cosigner::from_seed("w", &[9; 32]).unwrap();
            format!(
                "log {}\nwitness w {}\nquorum w\n",
                log.vkey(),
                witness.vkey()
            )
        };
        let text = Anchors::compose(&log("isp/fleet", 1), &log("isp/authority", 2), IMAGE);
        Anchors::parse(&text).unwrap()
    }

    fn recalled(kept: Option<&str>) -> u64 {
        let mut anchors = anchors();
        recall(&mut anchors, kept.map(str::as_bytes));
        anchors.people.epoch()
    }

    #[test]
    fn what_was_kept_holds_only_if_it_is_later_than_the_image() {
        let of = |epoch: u64| IMAGE.replace("epoch 3", &format!("epoch {epoch}"));

        assert_eq!(recalled(None), 3);
        assert_eq!(recalled(Some("torn")), 3);
        assert_eq!(recalled(Some(&of(2))), 3);
        assert_eq!(recalled(Some(&of(4))), 4);
    }

    #[test]
    fn what_nobody_signed_changes_nothing() {
        let mut anchors = anchors();
        let before = anchors.clone();
        let change = Activation {
            proposal: b"no proposal".to_vec(),
            approvals: Vec::new(),
            proof: String::new(),
        };

        follow(&mut anchors, &[change], 0, |_| Ok::<_, String>(()));

        assert_eq!(anchors, before);
    }
}
