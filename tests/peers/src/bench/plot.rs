//! The results as a picture: a panel for each scenario, a bar for each contender.

use lab::summary::Spread;
use plotters::prelude::*;

/// Pixels.
const WIDTH: u32 = 900;
const TITLE: u32 = 34;
const BAR: u32 = 22;
/// Where bars begin and the longest ends; beyond it its figures are written.
const BARS: std::ops::Range<i32> = 180..680;

/// One scenario.
pub(crate) struct Panel {
    /// What was measured, and the unit.
    pub(crate) title: String,
    /// Contenders, and what each needed; the first is the one that is compared.
    pub(crate) bars: Vec<(String, Spread)>,
}

/// The panels under each other, as SVG. A bar is the median, the line at its end goes from the least to the
/// greatest.
pub(crate) fn svg(panels: &[Panel]) -> Result<String, String> {
    let heights = panels.iter().map(|panel| TITLE + BAR * u32::try_from(panel.bars.len()).unwrap_or(0));
    let tops: Vec<u32> = std::iter::once(0)
        .chain(heights)
        .scan(0, |top, height| {
            *top += height;
            Some(*top)
        })
        .collect();
    let mut text = String::new();
    {
        let height = tops.last().copied().unwrap_or(0) + BAR;
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| error.to_string())?;
        for (panel, top) in panels.iter().zip(&tops) {
            draw(&area, panel, i32::try_from(*top).unwrap_or(0)).map_err(|error| error.to_string())?;
        }
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw<'a>(area: &Area<'a>, panel: &Panel, top: i32) -> Result<(), Failure<'a>> {
    let (title, label) = (("sans-serif", 15), ("sans-serif", 13));
    area.draw(&Text::new(panel.title.clone(), (10, top + 12), title))?;
    let greatest = panel.bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let length = f64::from(BARS.end - BARS.start);
    #[allow(clippy::cast_possible_truncation)] // from 0 to the length
    let x = |value: f64| BARS.start + (value / greatest * length) as i32;
    let first = panel.bars.first().map(|(_, spread)| spread.median);
    for (place, (name, spread)) in (0..).zip(&panel.bars) {
        let y = top + i32::try_from(TITLE).unwrap_or(0) + place * i32::try_from(BAR).unwrap_or(0);
        let colour = if place == 0 { RGBColor(200, 80, 20) } else { RGBColor(120, 140, 160) };
        area.draw(&Text::new(name.clone(), (20, y + 3), label))?;
        area.draw(&Rectangle::new([(BARS.start, y + 2), (x(spread.median), y + 17)], colour.filled()))?;
        area.draw(&PathElement::new([(x(spread.min), y + 10), (x(spread.max), y + 10)], BLACK))?;
        let ratio = first.map_or(0.0, |first| spread.median / first.max(f64::MIN_POSITIVE));
        let figures = format!("{:.2} ({:.2}-{:.2}), x {ratio:.2}", spread.median, spread.min, spread.max);
        area.draw(&Text::new(figures, (BARS.end + 10, y + 3), label))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_has_its_bar() {
        let spread = |values: [f64; 3]| Spread::of(values).unwrap();
        let bars = vec![
            ("server".to_owned(), spread([1.0, 2.0, 4.0])),
            ("<epoll>".to_owned(), spread([3.0, 4.0, 8.0])),
        ];
        let svg = svg(&[Panel { title: "echo".to_owned(), bars }]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["echo", "server", "&lt;epoll&gt;", "4.00 (3.00-8.00), x 2.00"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
    }
}
