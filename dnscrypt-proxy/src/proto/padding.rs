//! How long a plaintext becomes before it is sealed, and ISO/IEC 7816-4: one `0x80`, then zeros.

use super::seal::TAG;

/// Padded plaintexts are multiples of this.
pub const BLOCK: usize = 64;
/// The smallest whole UDP query. Some resolvers drop anything shorter.
pub const MIN_UDP_QUERY: usize = 256;
/// An answer that was cut asks for a query larger by this.
pub const TARGET_STEP: usize = 64;
/// The longest padding of a response and of a query over TCP, its first byte included.
const MAX_PAD: usize = 256;

/// The plaintext does not end in `0x80` and zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the padding is not ISO/IEC 7816-4")]
pub struct BadPadding;

/// Length of a UDP query's padded plaintext: the whole packet (header, tag) reaches `target`.
// SHOULD, "Padding"; MUST NOT there: receivers ask for neither these lengths nor these steps.
#[must_use]
pub fn udp_query_len(message: usize, header: usize, target: usize) -> usize {
    let wanted = target.max(MIN_UDP_QUERY).saturating_sub(header + TAG);
    wanted.max(message + 1).next_multiple_of(BLOCK)
}

/// The target after an answer that was cut: larger by 64, up to what the path carries.
// SHOULD, "Processing and Failure Handling".
#[must_use]
pub fn larger_target(target: usize, most: usize) -> usize {
    target.saturating_add(TARGET_STEP).min(most)
}

/// Length of the padded plaintext of a UDP query whose header is large already: one step of 64, or what
/// `room` leaves where that step would go beyond it and the message alone does not.
#[must_use]
pub fn full_query_len(message: usize, room: usize) -> usize {
    let stepped = (message + 1).next_multiple_of(BLOCK);
    if stepped > room && message < room {
        room
    } else {
        stepped
    }
}

/// Length of a TCP query's padded plaintext; `choice` is a random byte.
#[must_use]
pub fn tcp_query_len(message: usize, choice: u8) -> usize {
    spread(message, choice)
}

/// Length of a response's padded plaintext, or `None` when not even one byte of padding fits into
/// `room` (the plaintext bytes that the transport leaves). `choice` comes from
/// [`SharedKey::padding_choice`](super::seal::SharedKey::padding_choice).
#[must_use]
pub fn response_len(message: usize, room: usize, choice: u8) -> Option<usize> {
    if message >= room {
        return None;
    }
    let aligned_room = room - room % BLOCK;
    let least = (message + 1).next_multiple_of(BLOCK);
    if least > aligned_room {
        return Some(room);
    }
    Some(spread(message, choice).min(aligned_room))
}

/// Whether a response of this length fits with its padding in whole blocks.
#[must_use]
pub fn fits_aligned(message: usize, room: usize) -> bool {
    (message + 1).next_multiple_of(BLOCK) <= room
}

// MUST, "Padding".
/// Pads to `len`, which must be longer than the message.
pub fn pad(message: &mut Vec<u8>, len: usize) {
    debug_assert!(len > message.len());
    message.push(0x80);
    message.resize(len, 0);
}

// MUST, "Padding": a missing mark is a refusal, any length is none.
/// The message's length without its padding.
pub fn unpadded_len(padded: &[u8]) -> Result<usize, BadPadding> {
    match padded.iter().rposition(|byte| *byte != 0) {
        Some(at) if padded.get(at) == Some(&0x80) => Ok(at),
        Some(_) | None => Err(BadPadding),
    }
}

/// A multiple of the block between 1 and [`MAX_PAD`] bytes above the message, chosen among all of them.
fn spread(message: usize, choice: u8) -> usize {
    let least = (message + 1).next_multiple_of(BLOCK);
    let most = (message + MAX_PAD) / BLOCK * BLOCK;
    let choices = (most - least) / BLOCK + 1;
    least + usize::from(choice) % choices * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_without_its_mark_is_refused() {
        for bad in [
            &[][..],
            &[0],
            &[0, 0, 0],
            &[1],
            &[0x80, 1],
            &[0x80, 0, 0x81, 0],
        ] {
            assert_eq!(unpadded_len(bad), Err(BadPadding), "{bad:02x?}");
        }
    }

    #[test]
    fn only_the_last_mark_is_taken_off() {
        assert_eq!(unpadded_len(&[0x80]), Ok(0));
        assert_eq!(unpadded_len(&[7, 0x80, 0x80, 0, 0]), Ok(2));
    }

    #[test]
    fn a_udp_query_reaches_its_target_as_a_whole_packet_in_steps_of_64() {
        for message in 12..1500 {
            for target in [0, 256, 320, 512, 1024] {
                let len = udp_query_len(message, 52, target);

                assert_eq!(len % BLOCK, 0);
                assert!(len > message);
                assert!(52 + TAG + len >= target.max(MIN_UDP_QUERY));
                assert!(len < message.max(target.max(MIN_UDP_QUERY) - 68) + 1 + BLOCK);
            }
        }
    }

    #[test]
    fn a_cut_answer_asks_for_64_bytes_more_and_never_more_than_the_path_carries() {
        assert_eq!(larger_target(256, 1152), 320);
        assert_eq!(larger_target(1100, 1152), 1152);
        assert_eq!(larger_target(1152, 1152), 1152);
    }

    #[test]
    fn a_full_query_stays_within_its_room_while_its_message_does() {
        assert_eq!(full_query_len(33, 76), 64);
        assert_eq!(full_query_len(63, 76), 64);
        assert_eq!(full_query_len(64, 76), 76);
        assert_eq!(full_query_len(75, 76), 76);
        assert_eq!(full_query_len(76, 76), 128);
    }

    #[test]
    fn a_tcp_query_gets_1_to_256_bytes_and_every_length_occurs() {
        for message in 12..400 {
            let lens: std::collections::BTreeSet<_> =
                (0..=255).map(|c| tcp_query_len(message, c)).collect();

            assert_eq!(lens.len(), 4);
            assert!(
                lens.iter()
                    .all(|len| len % BLOCK == 0 && (1..=256).contains(&(len - message)))
            );
        }
    }

    #[test]
    fn a_response_shrinks_its_padding_before_it_gives_up() {
        assert_eq!(response_len(100, 100, 3), None);
        assert_eq!(response_len(100, 101, 3), Some(101));
        assert_eq!(response_len(100, 127, 3), Some(127));
        assert_eq!(response_len(100, 130, 3), Some(128));
        assert_eq!(response_len(100, 1000, 3), Some(320));
        assert_eq!(response_len(100, 1000, 0), Some(128));
    }
}
