//! Holds a lab until it is ended, however that happens: the tests of the undertaker end it in every way there is.

use std::io::Write;

use anyhow::{Context, Result};
use lab::Lab;

fn main() -> Result<()> {
    let lab = Lab::for_test()?;
    let _sleeper = lab.home.spawn("sleeper", "sleep", &["1000".as_ref()])?;
    println!("{}", lab.prefix());
    std::io::stdout()
        .flush()
        .context("telling the lab's name")?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .context("waiting for the end")?;
    if line.trim() == "panic" {
        panic!("as the test wishes");
    }
    Ok(())
}
