//! What the kernel counts at the TUN device, to be held against what the leases count.

use std::io;

/// The kernel's counters of every interface of this process's network namespace, readable for everybody.
const TABLE: &str = "/proc/self/net/dev";

/// Bytes of frames, a frame that stands for many packets counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceBytes {
    /// From the routers: written to the device.
    pub rx: u64,
    /// To the routers: read from the device.
    pub tx: u64,
}

/// The TUN device, and what it had counted before the gateway's first packet.
#[derive(Debug)]
pub(crate) struct Device {
    interface: String,
    before: DeviceBytes,
    counted: Option<DeviceBytes>,
}

impl Device {
    /// Begins to count here.
    pub(crate) fn begin(interface: &str) -> Self {
        Self {
            before: read(interface).unwrap_or_default(),
            interface: interface.to_owned(),
            counted: None,
        }
    }

    /// Reads what it has counted since; a device that is gone counts nothing.
    pub(crate) fn look(&mut self) {
        let now = read(&self.interface).ok();
        self.counted = now.map(|now| DeviceBytes {
            rx: now.rx.wrapping_sub(self.before.rx),
            tx: now.tx.wrapping_sub(self.before.tx),
        });
    }

    /// What it had counted at the last look.
    pub(crate) fn counted(&self) -> Option<DeviceBytes> {
        self.counted
    }
}

fn read(interface: &str) -> io::Result<DeviceBytes> {
    let table = std::fs::read_to_string(TABLE)?;
    find(&table, interface).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Finds an interface's line: its name, a colon, eight numbers of what came in and eight of what went out.
fn find(table: &str, interface: &str) -> Option<DeviceBytes> {
    let line = |line: &'_ str| -> Option<DeviceBytes> {
        let (name, numbers) = line.split_once(':')?;
        if name.trim() != interface {
            return None;
        }
        let mut numbers = numbers.split_ascii_whitespace();
        Some(DeviceBytes {
            rx: numbers.next()?.parse().ok()?,
            tx: numbers.nth(7)?.parse().ok()?,
        })
    };
    table.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo:     100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0\n\
        culvert0: 18446744073709551615 3 0 0 0 0 0 0 7 4 0 5 0 0 0 0\n";

    #[test]
    fn an_interface_that_is_not_there_or_has_no_numbers_has_no_counters() {
        for (table, interface) in [
            (SHOWN, "culvert"),
            (SHOWN, "culvert00"),
            ("", "lo"),
            ("lo: 1 2 3\n", "lo"),
            ("lo: x 1 0 0 0 0 0 0 2 0\n", "lo"),
        ] {
            assert_eq!(find(table, interface), None, "{interface} in {table}");
        }
    }

    #[test]
    fn an_interfaces_line_is_read_with_and_without_room_behind_the_colon() {
        let tun = find(SHOWN, "culvert0").unwrap();
        let lo = find(SHOWN, "lo").unwrap();

        assert_eq!((tun.rx, tun.tx), (u64::MAX, 7));
        assert_eq!((lo.rx, lo.tx), (100, 200));
    }

    #[test]
    fn this_machines_table_is_read() {
        assert!(read("lo").is_ok());
    }
}
