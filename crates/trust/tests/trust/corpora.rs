//! Replays `corpora/<parser>/`: inputs that once were of interest, each with its verdict in its name
//! (`accepted-…` or `refused-…`).

use std::path::Path;

use crate::parsers::{PARSERS, Verdict, held};

#[test]
fn every_input_of_the_corpora_gets_the_verdict_in_its_name() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");
    for parser in &PARSERS {
        let (mut accepted, mut refused) = (0, 0);
        for file in std::fs::read_dir(corpora.join(parser.name)).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let verdict = held(parser, &std::fs::read(&path).unwrap());
            let wanted = name.starts_with("accepted-");
            assert!(wanted || name.starts_with("refused-"), "{}", path.display());
            assert_eq!(verdict != Verdict::Refused, wanted, "{}", path.display());
            if wanted { accepted += 1 } else { refused += 1 }
        }
        assert!(
            accepted > 0 && refused > 0,
            "{} lacks inputs of one sort",
            parser.name
        );
    }
}

#[test]
fn every_folder_of_the_corpora_has_its_parser() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");

    for folder in std::fs::read_dir(corpora).unwrap() {
        let name = folder.unwrap().file_name().to_string_lossy().into_owned();
        assert!(PARSERS.iter().any(|parser| parser.name == name), "{name}");
    }
}
