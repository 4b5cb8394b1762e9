//! What the lab's internet offers: a web server (nginx), a root and an authoritative name server (nsd), iperf3.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::iperf::IperfServer;
use crate::process::Running;
use crate::topology::{Lab, ROOT_SERVER, WEB, WEB_V6, ZONE_SERVER};
use crate::zones::{PAGE_NAME, Zones};

/// The bytes that the observer searches for; every line of the web server's files has them.
pub const PAGE_MARKER: &str = "culvert-page-marker";
/// How much the home fetches.
pub const DOWNLOAD_BYTES: u64 = 100_000_000;
const START: Duration = Duration::from_secs(10);

/// The running services.
#[derive(Debug)]
pub struct Internet {
    /// The zones and their anchor.
    pub zones: Zones,
    /// The file of [`DOWNLOAD_BYTES`] as the server has it.
    pub download: PathBuf,
    services: Vec<Running>,
    iperf: IperfServer,
}

impl Internet {
    /// Starts everything and waits until it answers.
    pub fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.folder("internet")?;
        let zones = Zones::make(&dir)?;
        let download = write_pages(&dir)?;
        let mut services = vec![
            nsd(lab, &dir, "root", ROOT_SERVER, &zones.stanza(&["."]))?,
            nsd(
                lab,
                &dir,
                "zones",
                ZONE_SERVER,
                &zones.stanza(&Zones::BELOW_THE_ROOT),
            )?,
            nginx(lab, &dir)?,
        ];
        for (service, answers) in services.iter_mut().zip([
            ["dig", "+time=1", "+tries=1", "@203.0.113.53", ".", "SOA"].as_slice(),
            &[
                "dig",
                "+time=1",
                "+tries=1",
                "@203.0.113.54",
                PAGE_NAME,
                "A",
            ],
            &["curl", "-sf", "-o", "/dev/null", "http://203.0.113.10/"],
        ]) {
            service.wait_ready("answers", START, || {
                Ok(lab.internet.output(answers)?.status.success().then_some(()))
            })?;
        }
        Ok(Self {
            zones,
            download,
            services,
            iperf: IperfServer::start(&lab.internet, WEB)?,
        })
    }
}

impl Internet {
    pub(crate) fn let_go(self) {
        self.services.into_iter().for_each(Running::let_go);
        self.iperf.let_go();
    }
}

/// Without the limit of answers to one network (RRL) that it has by default: all of the lab's lookups come from one.
fn nsd(lab: &Lab, dir: &Path, label: &str, address: &str, zones: &str) -> Result<Running> {
    let file = |suffix: &str| format!("{}/nsd-{label}.{suffix}", dir.display());
    let config = format!(
        "server:\n  ip-address: {address}\n  server-count: 1\n  rrl-ratelimit: 0\n  username: \"\"\n  chroot: \"\"\n  hide-version: yes\n\
         \x20 zonesdir: \"\"\n  database: \"\"\n  pidfile: \"{}\"\n  xfrdfile: \"{}\"\n  zonelistfile: \"{}\"\n  xfrdir: \"{}\"\n\
         remote-control:\n  control-enable: no\n{zones}",
        file("pid"),
        file("xfrd"),
        file("list"),
        dir.display(),
    );
    let path = file("conf");
    fs::write(&path, config).context("writing nsd's configuration")?;
    lab.internet.spawn(
        &format!("nsd-{label}"),
        "nsd",
        &["-d", "-c", &path].map(OsStr::new),
    )
}

fn nginx(lab: &Lab, dir: &Path) -> Result<Running> {
    let config = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n access_log off;\n sendfile on;\n default_type application/octet-stream;\n\
         \x20client_body_temp_path {0}/t1;\n proxy_temp_path {0}/t2;\n fastcgi_temp_path {0}/t3;\n\
         \x20uwsgi_temp_path {0}/t4;\n scgi_temp_path {0}/t5;\n\
         \x20server {{ listen {WEB}:80; listen [{WEB_V6}]:80; root {0}/pages; }}\n}}\n",
        dir.display()
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config).context("writing nginx's configuration")?;
    let args = [
        OsStr::new("-c"),
        path.as_os_str(),
        OsStr::new("-e"),
        OsStr::new("stderr"),
    ];
    lab.internet.spawn("nginx", "nginx", &args)
}

fn write_pages(dir: &Path) -> Result<PathBuf> {
    let pages = dir.join("pages");
    fs::create_dir_all(&pages).context("creating the page folder")?;
    fs::write(
        pages.join("index.html"),
        format!("<h1>It works</h1><!-- {PAGE_MARKER} -->\n"),
    )
    .context("writing the page")?;
    let path = pages.join("hundred.bin");
    let mut file = BufWriter::new(fs::File::create(&path).context("creating the download")?);
    // 50 bytes a line: each line tells its place, so a download put together wrongly shows.
    for line in 0..DOWNLOAD_BYTES / 50 {
        writeln!(
            file,
            "{PAGE_MARKER} {line:012} {:>16}",
            line.wrapping_mul(7919) % 999_983
        )
        .context("writing the download")?;
    }
    file.flush().context("writing the download")?;
    Ok(path)
}
