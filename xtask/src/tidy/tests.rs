//! Every rule is shown a file that breaks it, and one that only looks as if it did.

use super::*;

fn rules(file: &str, text: &str) -> Vec<Rule> {
    let files = [(file.to_owned(), text.to_owned())];
    check(&files)
        .into_iter()
        .map(|problem| problem.rule)
        .collect()
}

fn src(body: &str) -> String {
    format!("//! A module.\n{body}")
}

#[test]
fn a_file_of_601_code_lines_is_too_long_and_comments_do_not_count() {
    let long = src(&"const A: u8 = 1;\n".repeat(601));
    let just = src(&format!(
        "{}{}",
        "const A: u8 = 1;\n".repeat(600),
        "// a word\n\n".repeat(50)
    ));

    assert_eq!(rules("x/src/a.rs", &long), [Rule::FileLength]);
    assert_eq!(rules("x/src/a.rs", &just), []);
}

#[test]
fn lines_of_a_long_literal_count_as_code() {
    let text = src(&format!("const A: &str = \"\n{}\";\n", "x\n".repeat(600)));

    assert_eq!(rules("x/src/a.rs", &text), [Rule::FileLength]);
}

#[test]
fn a_function_of_71_lines_is_too_long() {
    let long = src(&format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69)));
    let just = src(&format!(
        "fn f() {{\n{}{}}}\n",
        "    g();\n".repeat(68),
        "    // why\n".repeat(20)
    ));

    assert_eq!(rules("x/src/a.rs", &long), [Rule::FunctionLength]);
    assert_eq!(rules("x/src/a.rs", &just), []);
}

#[test]
fn names_that_say_nothing_are_refused_as_file_folder_and_module() {
    assert_eq!(rules("x/src/utils.rs", &src("")), [Rule::ModuleName]);
    assert_eq!(rules("x/src/common/peers.rs", &src("")), [Rule::ModuleName]);
    assert_eq!(rules("x/src/peers/mod.rs", &src("")), [Rule::ModuleName]);
    assert_eq!(
        rules("x/src/a.rs", &src("mod helpers { }\n")),
        [Rule::ModuleName]
    );
    assert_eq!(rules("x/src/commons.rs", &src("mod utility_poles;\n")), []);
}

#[test]
fn a_module_without_a_doc_is_refused() {
    assert_eq!(rules("x/src/a.rs", "fn a() {}\n"), [Rule::ModuleDoc]);
    assert_eq!(rules("x/tests/a.rs", "fn a() {}\n"), []);
}

#[test]
fn lib_rs_with_a_function_or_a_type_is_refused() {
    assert_eq!(
        rules("x/src/lib.rs", &src("pub fn a() {}\n")),
        [Rule::LibHoldsNoCode]
    );
    assert_eq!(
        rules("x/src/lib.rs", &src("pub struct A;\n")),
        [Rule::LibHoldsNoCode]
    );
    assert_eq!(
        rules(
            "x/src/lib.rs",
            &src("mod a;\n// fn in words\npub use a::fn_like;\n")
        ),
        []
    );
}

#[test]
fn unsafe_lives_in_netio_alone() {
    let text = src("fn a() { unsafe { b() } }\n");

    assert_eq!(rules("cpe-agent/src/a.rs", &text), [Rule::Unsafe]);
    assert_eq!(rules("crates/netio/src/a.rs", &text), []);
    assert_eq!(
        rules(
            "cpe-agent/src/a.rs",
            &src("// unsafe\nconst A: &str = \"unsafe\";\n#![forbid(unsafe_code)]\n")
        ),
        []
    );
}

#[test]
fn unwrap_stands_in_tests_alone() {
    assert_eq!(
        rules("x/src/a.rs", &src("fn a() { b().unwrap(); }\n")),
        [Rule::Unwrap]
    );
    assert_eq!(
        rules("x/src/a.rs", &src("fn a() { b().unwrap_or(1); }\n")),
        []
    );
    assert_eq!(
        rules(
            "x/src/a.rs",
            &src("#[cfg(test)]\nmod tests {\n    fn a() { b().unwrap(); }\n}\n")
        ),
        []
    );
    assert_eq!(rules("x/tests/a.rs", "fn a() { b().unwrap(); }\n"), []);
}

#[test]
fn a_file_declared_for_tests_alone_is_test_code() {
    let unwraps = (
        "x/src/a/vectors.rs".to_owned(),
        src("fn a() { b().unwrap(); }\n"),
    );
    let declared = ("x/src/a.rs".to_owned(), src("#[cfg(test)]\nmod vectors;\n"));
    let public = ("x/src/a.rs".to_owned(), src("mod vectors;\n"));

    assert_eq!(check(&[declared, unwraps.clone()]), []);
    assert_eq!(check(&[public, unwraps]).len(), 1);
}

#[test]
fn code_after_a_test_module_is_no_test() {
    let text = src("#[cfg(test)]\nmod tests {\n    fn a() {}\n}\nfn a() { b().unwrap(); }\n");

    assert_eq!(rules("x/src/a.rs", &text), [Rule::Unwrap]);
}

#[test]
fn pure_crates_ask_no_clock_socket_thread_or_file() {
    for line in [
        "let t = Instant::now();",
        "let t = std::time::SystemTime::now();",
        "let s = std::net::UdpSocket::bind(a);",
        "let s = TcpStream::connect(a);",
        "std::thread::spawn(f);",
        "tokio::spawn(f);",
        "std::fs::read(p);",
        "println!();",
    ] {
        let text = src(&format!("fn a() {{ {line} }}\n"));
        assert_eq!(
            rules("crates/trust/src/a.rs", &text),
            [Rule::PureCrate],
            "{line}"
        );
        assert_eq!(
            rules("crates/tunnel/src/a/b.rs", &text),
            [Rule::PureCrate],
            "{line}"
        );
        assert_eq!(
            rules("dnscrypt-proxy/src/seal.rs", &text),
            [Rule::PureCrate],
            "{line}"
        );
        assert_eq!(
            rules("dnscrypt-proxy/src/proto/seal.rs", &text),
            [Rule::PureCrate],
            "{line}"
        );
        assert_eq!(rules("dnscrypt-proxy/src/stub.rs", &text), [], "{line}");
        assert_eq!(rules("cpe-agent/src/a.rs", &text), [], "{line}");
    }
}

#[test]
fn pure_crates_may_take_time_as_an_argument_and_ask_the_clock_in_tests() {
    let text =
        src("fn a(now: Instant) {}\n#[cfg(test)]\nmod tests { fn b() { a(Instant::now()); } }\n");

    assert_eq!(rules("crates/tunnel/src/a.rs", &text), []);
}

#[test]
fn unfinished_work_is_refused_wherever_it_is_remarked() {
    for mark in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        assert_eq!(
            rules("x/src/a.rs", &src(&format!("// {mark}: later\n"))),
            [Rule::UnfinishedWork]
        );
        assert_eq!(
            rules("x/src/a.rs", &src(&format!("/* {mark} */\n"))),
            [Rule::UnfinishedWork]
        );
        assert_eq!(
            rules(
                "x/src/a.rs",
                &src(&format!("const A: &str = \"{mark}\";\n"))
            ),
            []
        );
    }
}

#[test]
fn an_ignored_test_is_refused() {
    let text = "#[test]\n#[ignore]\nfn a() {}\n";
    let reasoned = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n";

    assert_eq!(rules("x/tests/a.rs", text), [Rule::IgnoredTest]);
    assert_eq!(rules("x/tests/a.rs", reasoned), [Rule::IgnoredTest]);
}

#[test]
fn a_test_that_sleeps_is_refused_and_a_daemon_may() {
    let text = src("fn a() { std::thread::sleep(d); }\n");

    assert_eq!(rules("x/tests/a.rs", &text), [Rule::SleepInTest]);
    assert_eq!(rules("x/src/a.rs", &text), []);
}

#[test]
fn a_version_outside_the_root_manifest_is_refused() {
    for line in [
        "serde = \"1\"",
        "serde = { version = \"1\" }",
        "serde = { git = \"x\" }",
    ] {
        for section in [
            "dependencies",
            "dev-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let text =
                format!("[package]\nname = \"x\"\nversion = \"0.1.0\"\n\n[{section}]\n{line}\n");
            assert_eq!(
                rules("x/Cargo.toml", &text),
                [Rule::VersionOnce],
                "{section} {line}"
            );
        }
    }
    assert_eq!(
        rules(
            "x/Cargo.toml",
            "[dependencies]\nserde.workspace = true\nlab = { path = \"../lab\" }\n"
        ),
        []
    );
    assert_eq!(
        rules("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\n"),
        []
    );
}

#[test]
fn a_manifest_that_does_not_parse_is_refused() {
    assert_eq!(
        rules("x/Cargo.toml", "[dependencies\n"),
        [Rule::VersionOnce]
    );
}

#[test]
fn one_machines_folders_are_refused_in_any_file() {
    for path in [
        concat!("/ro", "ot/x"),
        concat!("/wo", "rk/x"),
        concat!("/ho", "me/me/x"),
    ] {
        assert_eq!(
            rules("README.md", &format!("see {path}\n")),
            [Rule::MachinePath]
        );
        assert_eq!(rules("README.md", &format!("see ns{path}\n")), []);
    }
}

#[test]
fn one_registrys_hosts_are_refused_in_any_file() {
    let host = concat!("https://py", "pi.org/simple");

    assert_eq!(
        rules("a.sh", &format!("pip install -i {host} x\n")),
        [Rule::RegistryHost]
    );
}
