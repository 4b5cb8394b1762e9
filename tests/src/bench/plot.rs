//! A drawing of bars with their spread, as SVG, written by hand: text, rectangles and lines are all that it takes.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::report::{Better, Spread};

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 400.0;
const NAME_WIDTH: f64 = 130.0;
const VALUE_WIDTH: f64 = 70.0;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 24.0;
const HEAD: f64 = 34.0;
const GAP: f64 = 24.0;
const TOP: f64 = 64.0;
const OURS: &str = "#0b6e4f";
const THEIRS: &str = "#9aa5b1";
const INK: &str = "#1f2933";
const PALE: &str = "#52606d";

/// One measure with a bar for each who was measured.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) better: Better,
    pub(super) bars: Vec<Bar>,
}

/// One who was measured, in all rounds.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) is_ours: bool,
    pub(super) values: Vec<f64>,
}

/// Draws panels in columns: a bar is the median, the line across its end goes from minimum to maximum.
pub(super) fn svg(title: &str, subtitle: &str, panels: &[Panel]) -> Result<String> {
    let most_bars = panels.iter().map(|panel| panel.bars.len()).max();
    let panel_height = HEAD + BAR_STEP * most_bars.unwrap_or(0) as f64 + GAP;
    let lines = panels.len().div_ceil(COLUMNS);
    let (width, height) = (
        GAP + COLUMNS as f64 * (PANEL_WIDTH + GAP),
        TOP + lines as f64 * panel_height + GAP,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut out, Place(GAP, 28.0), "start", INK, 18, title)?;
    let legend = format!("{subtitle}; bar: median, line: minimum to maximum");
    text(&mut out, Place(GAP, 48.0), "start", PALE, 12, &legend)?;
    for (n, panel) in panels.iter().enumerate() {
        let at = Place(
            GAP + (n % COLUMNS) as f64 * (PANEL_WIDTH + GAP),
            TOP + (n / COLUMNS) as f64 * panel_height,
        );
        draw(&mut out, at, panel).with_context(|| format!("drawing {}", panel.title))?;
    }
    out += "</svg>\n";
    Ok(out)
}

/// Where something stands: from the left, from the top.
#[derive(Clone, Copy)]
struct Place(f64, f64);

fn draw(out: &mut String, at: Place, panel: &Panel) -> Result<()> {
    let Place(left, top) = at;
    let better = match panel.better {
        Better::More => "more is better",
        Better::Less => "less is better",
    };
    let head = format!("{} ({})", panel.title, panel.unit);
    text(out, Place(left, top + 18.0), "start", INK, 14, &head)?;
    let end = left + PANEL_WIDTH;
    text(out, Place(end, top + 18.0), "end", PALE, 11, better)?;
    let values = panel.bars.iter().flat_map(|bar| &bar.values);
    let most = values.copied().fold(0.0, f64::max);
    let scale = (PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH) / if most > 0.0 { most } else { 1.0 };
    for (n, bar) in panel.bars.iter().enumerate() {
        let spread = Spread::of(&bar.values)?;
        let (x, y) = (left + NAME_WIDTH, top + HEAD + BAR_STEP * n as f64);
        let middle = y + BAR_HEIGHT / 2.0;
        let name = Place(x - 8.0, middle + 4.0);
        text(out, name, "end", INK, 12, &bar.name)?;
        let colour = if bar.is_ours { OURS } else { THEIRS };
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>",
            spread.median * scale
        )?;
        writeln!(
            out,
            "<line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"{INK}\" stroke-width=\"2\"/>",
            x + spread.min * scale,
            x + spread.max * scale
        )?;
        let value = Place(x + spread.max * scale + 6.0, middle + 4.0);
        text(out, value, "start", INK, 12, &short(spread.median))?;
    }
    Ok(())
}

fn text(
    out: &mut String,
    Place(x, y): Place,
    anchor: &str,
    colour: &str,
    size: u32,
    words: &str,
) -> Result<()> {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\" font-size=\"{size}\">{words}</text>"
    )?;
    Ok(())
}

/// Three digits that count.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, values: &[f64]) -> Bar {
        Bar {
            name: name.to_owned(),
            is_ours: name == "ours",
            values: values.to_vec(),
        }
    }

    fn panel(bars: Vec<Bar>) -> Panel {
        Panel {
            title: "one stream".to_owned(),
            unit: "Gb/s",
            better: Better::More,
            bars,
        }
    }

    #[test]
    fn a_bar_without_rounds_cannot_be_drawn() {
        assert!(svg("t", "m", &[panel(vec![bar("ours", &[])])]).is_err());
    }

    #[test]
    fn markup_in_words_stays_words() {
        let drawn = svg("a<b & c", "m", &[]).unwrap();

        assert!(drawn.contains("a&lt;b &amp; c"), "{drawn}");
    }

    #[test]
    fn the_longest_bar_ends_inside_its_panel_and_half_of_it_is_half_as_long() {
        let drawn = svg(
            "t",
            "m",
            &[panel(vec![bar("ours", &[8.0]), bar("peer", &[4.0])])],
        );

        let drawn = drawn.unwrap();
        assert!(drawn.contains("width=\"200.0\""), "{drawn}");
        assert!(drawn.contains("width=\"100.0\""), "{drawn}");
        assert_eq!(drawn.matches("<svg").count(), 1);
        assert!(drawn.ends_with("</svg>\n"));
    }
}
