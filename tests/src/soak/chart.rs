//! The soak as a drawing: one strip for each measure over the time, a line for each life, the kills across all of them.

use std::fmt::Write as _;

use anyhow::Result;

use super::samples::{Held, Samples};
use super::strikes::{Strike, Victim};

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 60.0;
const STRIP: f64 = 130.0;
const GAP: f64 = 40.0;
const INK: &str = "#1f2933";
const PALE: &str = "#52606d";
const COLOURS: [(&str, &str); 6] = [
    ("agent", "#0b6e4f"),
    ("gw1", "#2563a8"),
    ("gw2", "#b4540a"),
    ("provisioning", "#7b3f99"),
    ("down", "#0b6e4f"),
    ("up", "#b4540a"),
];

/// Some lines over the same time; each is a life.
struct Strip<'a> {
    title: &'a str,
    lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

/// Draws what was sampled and what was killed.
pub(super) fn svg(subtitle: &str, samples: &Samples, strikes: &[Strike]) -> Result<String> {
    let strips = strips(samples, strikes);
    let end = samples
        .flows
        .last()
        .map_or(1.0, |flow| flow.at.as_secs_f64().max(1.0));
    let height = TOP + strips.len() as f64 * (STRIP + GAP) + GAP;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, (LEFT, 24.0), (INK, "start"), "Soak")?;
    text(&mut out, (LEFT, 42.0), (PALE, "start"), subtitle)?;
    for strike in strikes {
        let x = LEFT + strike.at_s / end * (WIDTH - LEFT - RIGHT);
        writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#e4e7eb\"/>",
            height - GAP
        )?;
    }
    for (n, strip) in strips.iter().enumerate() {
        draw(&mut out, TOP + n as f64 * (STRIP + GAP), end, strip)?;
    }
    let minutes = format!("{:.0} minutes", end / 60.0);
    text(
        &mut out,
        (WIDTH - RIGHT, height - 20.0),
        (PALE, "end"),
        &minutes,
    )?;
    out += "</svg>\n";
    Ok(out)
}

fn strips<'a>(samples: &'a Samples, strikes: &[Strike]) -> [Strip<'a>; 4] {
    let lives = |of: fn(&Held) -> f64| -> Vec<(&str, Vec<(f64, f64)>)> {
        let line = |held: &[Held]| held.iter().map(|h| (h.at.as_secs_f64(), of(h))).collect();
        samples
            .lives
            .iter()
            .map(|life| (life.who, line(&life.held)))
            .collect()
    };
    let flow = |of: fn(&super::samples::Flow) -> f64| {
        samples
            .flows
            .iter()
            .map(|f| (f.at.as_secs_f64(), of(f)))
            .collect()
    };
    let outages = strikes.iter().map(|strike| {
        let name = match strike.victim {
            Victim::Agent => "agent",
            Victim::Gateway(0) => "gw1",
            Victim::Gateway(_) => "gw2",
        };
        // A bar: up from nothing and down again.
        let at = strike.at_s;
        (name, vec![(at, 0.0), (at, strike.outage_s)])
    });
    [
        Strip {
            title: "resident memory, MiB",
            lines: lives(|held| held.rss_kib as f64 / 1_024.0),
        },
        Strip {
            title: "descriptors",
            lines: lives(|held| held.descriptors as f64),
        },
        Strip {
            title: "throughput, Mb/s",
            lines: vec![("down", flow(|f| f.down_mbit)), ("up", flow(|f| f.up_mbit))],
        },
        Strip {
            title: "time without service after each kill, s",
            lines: outages.collect(),
        },
    ]
}

fn draw(out: &mut String, top: f64, end: f64, strip: &Strip<'_>) -> Result<()> {
    let values = strip
        .lines
        .iter()
        .flat_map(|(_, points)| points)
        .map(|(_, y)| *y);
    let most = values.fold(0.0, f64::max).max(0.001);
    let (bottom, right) = (top + GAP / 2.0 + STRIP, WIDTH - RIGHT);
    text(out, (LEFT, top + 12.0), (INK, "start"), strip.title)?;
    for (y, value) in [(bottom, 0.0), (bottom - STRIP + 8.0, most)] {
        text(
            out,
            (LEFT - 8.0, y + 4.0),
            (PALE, "end"),
            &format!("{value:.1}"),
        )?;
        writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#cbd2d9\"/>"
        )?;
    }
    let mut named: Vec<&str> = Vec::new();
    for (name, points) in &strip.lines {
        let known = COLOURS.iter().find(|(who, _)| who == name);
        let colour = known.map_or(INK, |(_, colour)| colour);
        write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\""
        )?;
        for (x, y) in points {
            let x = LEFT + x / end * (right - LEFT);
            write!(out, "{x:.1},{:.1} ", bottom - y / most * (STRIP - 8.0))?;
        }
        out.push_str("\"/>\n");
        if !named.contains(name) {
            let at = (right + 10.0, top + 30.0 + 18.0 * named.len() as f64);
            text(out, at, (colour, "start"), name)?;
            named.push(name);
        }
    }
    Ok(())
}

fn text(
    out: &mut String,
    (x, y): (f64, f64),
    (colour, anchor): (&str, &str),
    words: &str,
) -> Result<()> {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::soak::samples::{Flow, Life};

    #[test]
    fn each_life_has_a_line_of_its_own_and_each_kill_one_across() {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = Samples::create(folder.path()).unwrap();
        for pid in [1, 2] {
            let held = [0, 60].map(|at| Held {
                at: Duration::from_secs(at),
                rss_kib: 2_048,
                descriptors: 9,
                threads: 4,
            });
            samples.lives.push(Life {
                who: "gw1",
                pid,
                held: held.to_vec(),
            });
        }
        samples.flows.push(Flow {
            at: Duration::from_secs(120),
            down_mbit: 5.0,
            up_mbit: 5.0,
        });
        let strike = Strike {
            at_s: 60.0,
            victim: Victim::Gateway(0),
            in_use: true,
            away_s: 1.0,
            outage_s: 1.5,
            stall_s: 2.0,
        };

        let drawn = svg("a<b", &samples, &[strike]).unwrap();

        // Two lives in two strips, two flows, one outage.
        assert_eq!(drawn.matches("<polyline").count(), 7);
        // Half of the time is in the middle.
        assert!(drawn.contains("<line x1=\"485.0\""), "{drawn}");
        assert!(drawn.contains("a&lt;b") && drawn.contains("gw1</text>"));
        assert!(drawn.ends_with("</svg>\n"));
    }
}
