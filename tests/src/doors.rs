//! The doors of a gateway's resolver in the lab: their certificate and their lines in the configuration.

use anyhow::Result;

use crate::pop::{GATEWAY_INNER, GATEWAY_INNER_V6};
use crate::world::World;

/// The name in the doors' certificate.
pub const DOORS_NAME: &str = "dns.pop1.example";
/// Where DNS over HTTPS is by itself, HTTP/3 too; over TCP it is also beside DNSCrypt, on port 443.
pub const HTTPS_PORT: u16 = 8443;
const SHARED_PORT: u16 = 443;

/// Opens the doors of a world's gateway, which is started anew, and says where the certificate is that devices trust.
pub fn open_doors(world: &mut World) -> Result<String> {
    let dir = world.lab.folder("doors")?;
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (certificate, key) = (path("dns.crt"), path("dns.key"));
    let subject = format!("/CN={DOORS_NAME}");
    let names = format!("subjectAltName=DNS:{DOORS_NAME}");
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90";
    let files = ["-keyout", &key, "-out", &certificate];
    let make = ["openssl"].into_iter().chain(make.split(' '));
    let make = make.chain(["-subj", &subject, "-addext", &names]);
    let make: Vec<&str> = make.chain(files).collect();
    world.lab.pop.run(&make)?;
    let at = |port: u16| format!("\"{GATEWAY_INNER}:{port}\", \"[{GATEWAY_INNER_V6}]:{port}\"");
    let doors = format!(
        "\n[dns.doors]\nname = \"{DOORS_NAME}\"\ncertificate-file = \"{certificate}\"\nkey-file = \"{key}\"\n\
         tls = [{dot}]\nhttps = [{shared}, {https}]\nquic = [{dot}]\n",
        dot = at(853),
        shared = at(SHARED_PORT),
        https = at(HTTPS_PORT),
    );
    world.pop.edit_config(|text| text + &doors)?;
    world.gateway = None;
    world.gateway = Some(world.pop.start()?);
    Ok(certificate)
}
