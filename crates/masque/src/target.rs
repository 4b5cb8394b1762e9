//! Whom a proxy is to reach, as the path of the well-known template says it (RFC 9298 section 3).

use std::net::{IpAddr, SocketAddr};

const PREFIX: &str = "/.well-known/masque/udp/";

/// The address and port that a client asks for. Names are not looked up: what may be reached has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(pub SocketAddr);

impl Target {
    /// The path that asks for it.
    #[must_use]
    pub fn path(self) -> String {
        // The colons of IPv6 must not stand for themselves within a template's value.
        let host = self.0.ip().to_string().replace(':', "%3A");
        format!("{PREFIX}{host}/{}/", self.0.port())
    }

    /// Reads a path; `None` if it is not of the template, or names a host that is no address.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        let (host, rest) = rest.split_once('/')?;
        let port = rest.strip_suffix('/')?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port: u16 = port.parse().ok().filter(|_| is_number)?;
        let host: IpAddr = host.replace("%3A", ":").replace("%3a", ":").parse().ok()?;
        Some(Self(SocketAddr::new(host, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_not_of_the_template_or_name_no_address_are_refused() {
        for path in [
            "/",
            "/.well-known/masque/udp/192.0.2.1/51820",
            "/.well-known/masque/udp/192.0.2.1/+1/",
            "/.well-known/masque/udp/192.0.2.1/65536/",
            "/.well-known/masque/udp/192.0.2.1//",
            "/.well-known/masque/udp//51820/",
            "/.well-known/masque/udp/example.net/51820/",
            "/.well-known/masque/udp/192.0.2.1/51820/x/",
            "/.well-known/masque/ip/192.0.2.1/51820/",
        ] {
            assert_eq!(Target::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_read_as_they_are_written() {
        for (address, path) in [
            (
                "192.0.2.1:51820",
                "/.well-known/masque/udp/192.0.2.1/51820/",
            ),
            (
                "[2001:db8::42]:443",
                "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/",
            ),
        ] {
            let target = Target(address.parse().unwrap());

            assert_eq!(target.path(), path);
            assert_eq!(Target::from_path(path), Some(target));
        }
    }
}
