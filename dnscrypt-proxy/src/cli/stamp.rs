//! `culvert-dns stamp`: making and showing stamps.

use serde_json::{Value, json};

use super::MakeArgs;
use crate::certs::hex;
use crate::proto::stamp::{DnsCryptStamp, Props, Stamp};

pub(super) fn make(args: MakeArgs) -> String {
    let promised = [
        (args.dnssec, Props::DNSSEC),
        (args.no_log, Props::NO_LOG),
        (args.no_filter, Props::NO_FILTER),
    ];
    let props = promised
        .iter()
        .filter(|(yes, _)| *yes)
        .fold(0, |props, (_, bit)| props | bit);
    let stamp = DnsCryptStamp {
        props: Props(props),
        addr: args.addr,
        provider_key: args.provider_key,
        provider_name: args.provider_name,
    };
    format!("{stamp}\n")
}

pub(super) fn show(stamp: &Stamp, json: bool) -> String {
    let fields = fields(stamp);
    if json {
        let mut object = serde_json::Map::new();
        object.insert("kind".to_owned(), json!(stamp.kind_name()));
        object.extend(
            fields
                .into_iter()
                .map(|(name, value)| (name.replace(' ', "_"), value)),
        );
        return format!("{}\n", Value::Object(object));
    }
    let mut text = format!("{:<14} {}\n", "kind", stamp.kind_name());
    for (name, value) in fields {
        let value = match value.as_array() {
            Some(values) => values
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
            None => value.as_str().unwrap_or_default().to_owned(),
        };
        text.push_str(&format!("{name:<14} {value}\n"));
    }
    text
}

/// What a resolver promises, in words.
pub(super) fn promises(props: Props) -> Vec<&'static str> {
    let names = [
        (Props::DNSSEC, "validates DNSSEC"),
        (Props::NO_LOG, "keeps no log"),
        (Props::NO_FILTER, "blocks nothing"),
    ];
    names
        .iter()
        .filter(|(bit, _)| props.has(*bit))
        .map(|(_, name)| *name)
        .collect()
}

fn fields(stamp: &Stamp) -> Vec<(&'static str, Value)> {
    match stamp {
        Stamp::Plain { props, addr } => vec![
            ("address", json!(addr.to_string())),
            ("promises", json!(promises(*props))),
        ],
        Stamp::DnsCrypt(stamp) => vec![
            ("address", json!(stamp.addr.to_string())),
            ("provider name", json!(stamp.provider_name)),
            ("provider key", json!(hex(&stamp.provider_key))),
            ("promises", json!(promises(stamp.props))),
        ],
        Stamp::Doh(tls, path) | Stamp::OdohRelay(tls, path) => {
            let mut fields = tls_fields(tls);
            fields.push(("path", json!(path)));
            fields
        }
        Stamp::Dot(tls) | Stamp::Doq(tls) => tls_fields(tls),
        Stamp::OdohTarget { props, host, path } => vec![
            ("host", json!(host)),
            ("path", json!(path)),
            ("promises", json!(promises(*props))),
        ],
        Stamp::DnsCryptRelay { addr } => vec![("address", json!(addr.to_string()))],
    }
}

fn tls_fields(tls: &crate::proto::stamp::Tls) -> Vec<(&'static str, Value)> {
    let hashes: Vec<_> = tls.hashes.iter().map(|hash| hex(hash)).collect();
    vec![
        ("address", json!(tls.addr)),
        ("host", json!(tls.host)),
        ("hashes", json!(hashes)),
        ("bootstrap", json!(tls.bootstrap)),
        ("promises", json!(promises(tls.props))),
    ]
}
