//! The section `[policy]` of the configuration file.

use std::path::PathBuf;

use toml::{Table, Value};

use super::config::RawConfig;
use crate::policy::{
    Aaaa, BlockAnswer, Cloak, Forward, MAX_FILES, MAX_NAMES, NotAForward, NotAName, OwnResolver,
    Rebinding, Rules, WireName,
};

const SECTION: &str = "policy";
const DEFAULT_DOMAIN: &str = "lan";
const ACCEPTED_KEYS: &str = "local-domain, hosts-files, leases-files, blocklists, allowlists, block-answer, rebind-protection, \
    rebind-allow, cloak, forward, filter-aaaa, stop-browser-doh, stop-private-relay";
const FILES: &str = "absolute paths";
pub(super) const FORWARDS: &str = "\"ZONE ADDRESS…\" with addresses inside this network";
const DOMAIN: &str = "a name such as \"lan\", or \"\" for none";

/// What holds where nothing is configured.
pub(super) fn without_a_file() -> Rules {
    Rules {
        local_domain: DEFAULT_DOMAIN.parse().ok(),
        ..Rules::default()
    }
}

/// Takes the section out of the file.
pub(super) fn read(file: &mut RawConfig) -> Rules {
    let table = match file.table.remove(SECTION) {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(_) => {
            file.mistake(SECTION, "is not a section", "[policy]");
            return Rules::default();
        }
    };
    let mut section = RawConfig {
        table,
        mistakes: Vec::new(),
    };
    let rules = read_keys(&mut section);
    section.unknown_keys(ACCEPTED_KEYS);
    let mistakes = section.mistakes.into_iter();
    file.mistakes
        .extend(mistakes.map(|mistake| format!("{SECTION}.{mistake}")));
    rules
}

fn read_keys(section: &mut RawConfig) -> Rules {
    let local_domain = domain(section, "local-domain");
    let (hosts_files, leases_files) = (
        files(section, "hosts-files"),
        files(section, "leases-files"),
    );
    let (blocklists, allowlists) = (files(section, "blocklists"), files(section, "allowlists"));
    let block_answer = block_answer(section, "block-answer");
    let not_a_name = |error: NotAName| error.to_string();
    let rebinding = if section.boolean("rebind-protection") {
        Rebinding::Refused
    } else {
        Rebinding::Accepted
    };
    let rebind_allow = section.optional_list("rebind-allow", 0, MAX_NAMES, "host names", |text| {
        text.parse().map_err(not_a_name)
    });
    let cloaks = section.optional_list(
        "cloak",
        0,
        MAX_NAMES,
        "\"NAME ADDRESS…\" or \"NAME OTHER-NAME\"",
        |text| text.parse::<Cloak>().map_err(not_a_name),
    );
    let forwards = section.optional_list("forward", 0, MAX_NAMES, FORWARDS, |text| {
        text.parse::<Forward>()
            .map_err(|error: NotAForward| error.to_string())
    });
    let aaaa = if section.boolean("filter-aaaa") {
        Aaaa::Denied
    } else {
        Aaaa::Asked
    };
    let mut own_resolver = |key| {
        if section.boolean(key) {
            OwnResolver::Denied
        } else {
            OwnResolver::Asked
        }
    };
    Rules {
        browser_doh: own_resolver("stop-browser-doh"),
        private_relay: own_resolver("stop-private-relay"),
        local_domain,
        hosts_files,
        leases_files,
        blocklists,
        allowlists,
        block_answer,
        rebinding,
        rebind_allow: rebind_allow.unwrap_or_default(),
        cloaks: cloaks.unwrap_or_default(),
        forwards: forwards.unwrap_or_default(),
        aaaa,
    }
}

fn files(section: &mut RawConfig, key: &str) -> Vec<PathBuf> {
    let files = section.optional_list(key, 0, MAX_FILES, FILES, |text| {
        let path = PathBuf::from(text);
        let is_absolute = path.is_absolute();
        is_absolute
            .then_some(path)
            .ok_or_else(|| "not an absolute path".to_owned())
    });
    files.unwrap_or_default()
}

fn block_answer(section: &mut RawConfig, key: &str) -> BlockAnswer {
    let Some(value) = section.table.remove(key) else {
        return BlockAnswer::default();
    };
    let answer = value.as_str().and_then(|text| text.parse().ok());
    if answer.is_none() {
        section.mistake(key, "is none of the words", "\"nxdomain\" or \"zero\"");
    }
    answer.unwrap_or_default()
}

fn domain(section: &mut RawConfig, key: &str) -> Option<WireName> {
    let text = match section.table.remove(key) {
        None => return DEFAULT_DOMAIN.parse().ok(),
        Some(value) => value.as_str().map(str::to_owned),
    };
    let domain = text.as_deref().map(str::parse);
    match (text.as_deref(), domain) {
        (_, Some(Ok(domain))) => return Some(domain),
        (Some(""), _) => {}
        _ => section.mistake(key, "is not a host name", DOMAIN),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Rules, Vec<String>) {
        let mut file = RawConfig {
            table: text.parse().unwrap(),
            mistakes: Vec::new(),
        };
        let rules = read(&mut file);
        assert!(file.table.is_empty());
        (rules, file.mistakes)
    }

    #[test]
    fn every_mistake_of_the_section_is_told_with_its_path() {
        let text = "[policy]\nlocal-domain = \"a b\"\nhosts-files = [\"hosts\"]\nblocklists = 1\nblock-answer = \"drop\"\n\
                    rebind-protection = \"on\"\nrebind-allow = [\"a..b\"]\ncloak = [\"a.example\"]\nforward = [\"a.example 192.0.2.1\"]\nfilter-aaaa = 0\nstop = true";

        let (_, mistakes) = read_text(text);

        let keys: Vec<_> = mistakes
            .iter()
            .map(|mistake| mistake.split(':').next().unwrap())
            .collect();
        assert_eq!(
            keys,
            [
                "policy.local-domain",
                "policy.hosts-files[0]",
                "policy.blocklists",
                "policy.block-answer",
                "policy.rebind-protection",
                "policy.rebind-allow[0]",
                "policy.cloak[0]",
                "policy.forward[0]",
                "policy.filter-aaaa",
                "policy.stop"
            ]
        );
        assert_eq!(read_text("policy = 1").1.len(), 1);
    }

    #[test]
    fn what_is_left_out_protects_nothing_but_special_names_and_the_domain() {
        assert_eq!(read_text(""), (without_a_file(), Vec::new()));
        let (rules, mistakes) = read_text("[policy]\nlocal-domain = \"\"");
        assert_eq!((rules, mistakes.len()), (Rules::default(), 0));
    }

    #[test]
    fn a_whole_section_is_read() {
        let text = "[policy]\nlocal-domain = \"home\"\nblocklists = [\"/etc/list\"]\nblock-answer = \"zero\"\nrebind-protection = true\n\
                    rebind-allow = [\"plex.direct\"]\ncloak = [\"a.example 192.0.2.1\"]\nforward = [\"lan 10.0.0.1\"]\nfilter-aaaa = true\nstop-private-relay = true";

        let (rules, mistakes) = read_text(text);

        assert_eq!(mistakes, [""; 0]);
        assert_eq!(rules.local_domain, "home".parse().ok());
        assert_eq!(rules.blocklists, [PathBuf::from("/etc/list")]);
        assert_eq!(rules.block_answer, BlockAnswer::Zero);
        assert_eq!(rules.rebinding, Rebinding::Refused);
        assert_eq!((rules.rebind_allow.len(), rules.cloaks.len()), (1, 1));
        assert_eq!(rules.forwards, ["lan 10.0.0.1".parse().unwrap()]);
        assert_eq!(
            (rules.aaaa, rules.browser_doh),
            (Aaaa::Denied, OwnResolver::Asked)
        );
        assert_eq!(rules.private_relay, OwnResolver::Denied);
    }
}
