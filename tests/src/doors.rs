//! The doors of a gateway's resolver in the lab: their certificate and their lines in the configuration.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::pop::{GATEWAY_INNER, GATEWAY_INNER_V6};
use crate::world::World;

/// The name in the doors' certificate.
pub const DOORS_NAME: &str = "dns.pop1.example";
/// Where DNS over HTTPS is, beside DNSCrypt on port 443.
pub const HTTPS_PORT: u16 = 8443;

/// A gateway whose resolver has doors.
#[derive(Debug)]
pub struct DoorsSite {
    /// What devices trust.
    pub certificate: PathBuf,
}

impl DoorsSite {
    /// Makes a certificate, opens the doors with these lines in `[dns]` besides, and starts the gateway anew.
    pub fn open(world: &mut World, more: &str) -> Result<Self> {
        let dir = world.lab.folder("doors")?;
        let (certificate, key) = (dir.join("dns.crt"), dir.join("dns.key"));
        let names = format!(
            "subjectAltName=DNS:{DOORS_NAME},IP:{GATEWAY_INNER},IP:{GATEWAY_INNER_V6},IP:192.168.1.1"
        );
        world.lab.pop.run(&[
            "openssl".as_ref(),
            "req".as_ref(),
            "-x509".as_ref(),
            "-newkey".as_ref(),
            "ec".as_ref(),
            "-pkeyopt".as_ref(),
            "ec_paramgen_curve:prime256v1".as_ref(),
            "-nodes".as_ref(),
            "-days".as_ref(),
            "90".as_ref(),
            "-subj".as_ref(),
            format!("/CN={DOORS_NAME}").as_ref(),
            "-addext".as_ref(),
            names.as_ref(),
            "-keyout".as_ref(),
            key.as_os_str(),
            "-out".as_ref(),
            certificate.as_os_str(),
        ])?;
        let listen =
            |port: u16| format!("[\"{GATEWAY_INNER}:{port}\", \"[{GATEWAY_INNER_V6}]:{port}\"]");
        let doors = format!(
            "\n[dns.doors]\nname = \"{DOORS_NAME}\"\ncertificate-file = \"{}\"\nkey-file = \"{}\"\n\
             tls = {dot}\nhttps = {https}\nquic = {dot}\n",
            certificate.display(),
            key.display(),
            dot = listen(853),
            https = listen(HTTPS_PORT),
        );
        world.pop.edit_config(|text| {
            text.replace("dnssec = true\n", &format!("dnssec = true\n{more}\n")) + &doors
        })?;
        world.gateway = None;
        world.gateway = Some(world.pop.start()?);
        Ok(Self { certificate })
    }

    /// The file's path as an argument.
    pub fn certificate(&self) -> Result<String> {
        let readable = fs::canonicalize(&self.certificate).context("finding the certificate")?;
        Ok(readable.to_string_lossy().into_owned())
    }
}
