//! Claim codes: typing errors, tolerance, and what may not be shown.

use rand_core::OsRng;
use trust::{ClaimCode, ClaimCodeError};

#[test]
fn a_code_that_is_too_short_or_too_long_says_so() {
    let code = ClaimCode::generate(&mut OsRng).to_string();

    for (typed, got) in [
        ("", 0),
        ("CV-", 2),
        (&code[..code.len() - 1], 24),
        (&format!("{code}0"), 26),
    ] {
        assert_eq!(
            typed.parse::<ClaimCode>().unwrap_err(),
            ClaimCodeError::Length { got }
        );
    }
}

#[test]
fn a_symbol_that_no_code_has_is_named() {
    let typed = "CV-00000-00000-U0000-00000-00000";

    let refused = typed.parse::<ClaimCode>().unwrap_err();

    assert_eq!(
        refused,
        ClaimCodeError::Symbol {
            symbol: 'U',
            place: 11
        }
    );
}

#[test]
fn every_single_wrong_symbol_is_a_typing_error() {
    let code = ClaimCode::generate(&mut OsRng).to_string();

    for (place, symbol) in code
        .char_indices()
        .skip(3)
        .filter(|(_, symbol)| *symbol != '-')
    {
        let wrong = if symbol == '7' { "8" } else { "7" };
        let mut typed = code.clone();
        typed.replace_range(place..=place, wrong);
        assert_eq!(
            typed.parse::<ClaimCode>().unwrap_err(),
            ClaimCodeError::Typing,
            "{place}"
        );
    }
}

#[test]
fn two_neighbours_swapped_are_a_typing_error() {
    let code = include_str!("../../vectors/claim-code.txt").trim();

    for place in 3..code.len() - 1 {
        let (a, b) = (&code[place..=place], &code[place + 1..place + 2]);
        if a == b || a == "-" || b == "-" {
            continue;
        }
        let mut typed = code.to_owned();
        typed.replace_range(place..place + 2, &format!("{b}{a}"));
        assert_eq!(
            typed.parse::<ClaimCode>().unwrap_err(),
            ClaimCodeError::Typing,
            "{place}"
        );
    }
}

#[test]
fn debug_does_not_show_the_code() {
    let code = ClaimCode::generate(&mut OsRng);

    assert_eq!(format!("{code:?}"), "ClaimCode(secret)");
}

#[test]
fn what_people_type_is_understood() {
    let code = ClaimCode::generate(&mut OsRng);
    let shown = code.to_string();

    for typed in [
        shown.to_lowercase(),
        shown.replace('-', ""),
        shown.replace('-', "  "),
        shown[3..].to_owned(),
        shown[..2].to_owned() + &shown[2..].replace('0', "o").replace('1', "l"),
        format!("\t{shown}\n"),
    ] {
        assert_eq!(typed.parse::<ClaimCode>().unwrap(), code, "{typed:?}");
    }
}

#[test]
fn a_code_without_prefix_that_begins_with_cv_is_itself() {
    let code = loop {
        let code = ClaimCode::generate(&mut OsRng);
        if code.to_string().starts_with("CV-CV") {
            break code;
        }
    };

    let typed = code.to_string()[3..].to_owned();

    assert_eq!(typed.parse::<ClaimCode>().unwrap(), code);
}

#[test]
fn two_codes_are_two_keys() {
    let a = ClaimCode::generate(&mut OsRng);
    let b = ClaimCode::generate(&mut OsRng);

    assert_ne!(a.to_string(), b.to_string());
    assert_ne!(a.signing_key().to_bytes(), b.signing_key().to_bytes());
}
