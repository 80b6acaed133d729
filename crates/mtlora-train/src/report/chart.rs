//! Draws line charts as SVG.

use std::fmt::Write;

use super::page::escape;

/// The size of the picture, which the page scales.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 290.0;
/// The margins for the labels around the plot.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// The height of a title above a plot.
const TITLE: f64 = 24.0;
/// The approximate number of grid lines.
const TICKS: f64 = 5.0;

/// One run's line.
pub(super) struct Series {
    /// The run's name.
    pub(super) name: String,
    /// The CSS class that gives its colour.
    pub(super) class: String,
    /// The line.
    pub(super) points: Vec<(f64, f64)>,
    /// The points whose moving mean the line shows, drawn fainter behind it.
    pub(super) behind: Vec<(f64, f64)>,
    /// Whether each point is marked with a dot.
    pub(super) dots: bool,
    /// The step of the best point.
    pub(super) best: Option<f64>,
}

/// A chart with the steps on the horizontal axis.
pub(super) struct Chart {
    /// The title.
    pub(super) title: String,
    /// The lines.
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// The chart as an HTML `figure`, or `None` if it has no points. `number` distinguishes it from the other charts of
    /// the page.
    pub(super) fn figure(&self, number: usize) -> Option<String> {
        let title = escape(&self.title);
        let svg = self.svg(number, "")?;
        Some(format!(
            "<figure class=\"card\"><figcaption>{title}</figcaption>\n{svg}</figure>\n"
        ))
    }

    /// The chart as an `svg` element with these further `attributes`, or `None` if it has no points.
    fn svg(&self, number: usize, attributes: &str) -> Option<String> {
        let points = || self.series.iter().flat_map(|one| &one.points);
        // The axis begins at the first step even if the first point is later.
        let across = span(points().map(|point| point.0).chain([0.0]), 0.0)?;
        points().next()?;
        let behind = self.series.iter().flat_map(|one| inner(&one.behind));
        let up = span(points().map(|point| point.1).chain(behind), 0.06)?;
        let x =
            |value: f64| LEFT + (value - across.0) / (across.1 - across.0) * (WIDTH - LEFT - RIGHT);
        let y =
            |value: f64| HEIGHT - BOTTOM - (value - up.0) / (up.1 - up.0) * (HEIGHT - TOP - BOTTOM);

        let title = escape(&self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\"{attributes} \
             role=\"img\" aria-label=\"{title} by step\">\n<clipPath id=\"plot{number}\"><rect x=\"{LEFT}\" \
             y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
            WIDTH - LEFT - RIGHT,
            HEIGHT - TOP - BOTTOM
        );
        let (ticks, step) = ticks(up);
        for tick in ticks {
            let (at, label) = (y(tick), label(tick, step));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0
            );
        }
        let (ticks, step) = self::ticks(across);
        for tick in ticks {
            let (at, label) = (x(tick), label(tick, step));
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                HEIGHT - BOTTOM + 18.0
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {0}H{1}\"/><text x=\"{1}\" y=\"{2}\" text-anchor=\"end\">step</text>",
            HEIGHT - BOTTOM,
            WIDTH - RIGHT,
            HEIGHT - 6.0
        );
        let _ = writeln!(svg, "<g clip-path=\"url(#plot{number})\">");
        let path = |points: &[(f64, f64)]| {
            let mut d = String::new();
            for (index, point) in points.iter().enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                let _ = write!(d, "{letter}{:.1} {:.1}", x(point.0), y(point.1));
            }
            d
        };
        for one in &self.series {
            if !one.behind.is_empty() {
                let d = path(&one.behind);
                let _ = writeln!(svg, "<path class=\"line behind {}\" d=\"{d}\"/>", one.class);
            }
        }
        for one in &self.series {
            let d = path(&one.points);
            let _ = writeln!(svg, "<path class=\"line {}\" d=\"{d}\"/>", one.class);
        }
        svg.push_str("</g>\n");
        for one in &self.series {
            let name = escape(&one.name);
            for point in one.points.iter().filter(|_| one.dots) {
                let best = one.best == Some(point.0);
                let _ = writeln!(
                    svg,
                    "<circle class=\"{} {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{}\"><title>{name}, step {}: {}{}</title>\
                     </circle>",
                    if best { "best" } else { "dot" },
                    one.class,
                    x(point.0),
                    y(point.1),
                    if best { 5.5 } else { 3.0 },
                    point.0,
                    significant(point.1),
                    if best { " (kept)" } else { "" }
                );
            }
        }
        svg.push_str("</svg>");
        Some(svg)
    }
}

/// Charts as one picture, which is a file of its own: one below the other, each under its title. `None` if none has
/// points. `style` has the colours of the charts' classes.
pub(super) fn picture(charts: &[Chart], style: &str) -> Option<String> {
    let mut panels = String::new();
    let mut top = 0.0;
    for (number, chart) in charts.iter().enumerate() {
        let place = format!(
            " x=\"0\" y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"",
            top + TITLE
        );
        let Some(svg) = chart.svg(number, &place) else {
            continue;
        };
        let _ = writeln!(
            panels,
            "<text x=\"{LEFT}\" y=\"{}\">{}</text>\n{svg}",
            top + TITLE - 6.0,
            escape(&chart.title)
        );
        top += TITLE + HEIGHT;
    }
    (top > 0.0).then(|| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" \
             height=\"{top}\">\n<style>\n{style}\nsvg {{ font-family: system-ui, sans-serif; }}\n</style>\n{panels}</svg>\n"
        )
    })
}

/// The values of a noisy line that the range of the chart should cover: all but the most extreme few.
fn inner(points: &[(f64, f64)]) -> Vec<f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 25;
    values[cut..values.len() - cut].to_vec()
}

/// The range from the smallest to the largest value, extended by a margin on both sides. `None` if there are no values.
pub(super) fn span(values: impl IntoIterator<Item = f64>, room: f64) -> Option<(f64, f64)> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return None;
    }
    if high - low <= low.abs() * 1e-9 {
        let around = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        return Some((low - around, high + around));
    }
    let room = (high - low) * room;
    Some((low - room, high + room))
}

/// Round numbers between two values for the ticks, and the distance between ticks.
pub(super) fn ticks((low, high): (f64, f64)) -> (Vec<f64>, f64) {
    let rough = (high - low) / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    let all = (first..=last).map(|index| index as f64 * step);
    (all.collect(), step)
}

/// The label of a tick, with as many digits as the distance to the next tick needs.
pub(super) fn label(tick: f64, step: f64) -> String {
    if tick == 0.0 {
        return "0".to_string();
    }
    if tick.abs() >= 1e6 {
        return format!("{}M", tick / 1e6);
    }
    if step < 1e-4 {
        return format!("{tick:.1e}");
    }
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{tick:.digits$}")
}

/// A value with four decimals, or fewer if it is large.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        let digits = 4.0 - value.abs().max(1.0).log10().floor();
        return format!("{value:.0$}", digits as usize);
    }
    format!("{value:.3e}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        Series {
            name: "a <run>".into(),
            class: "r0".into(),
            points: points.to_vec(),
            behind: Vec::new(),
            dots: true,
            best: Some(2.0),
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        for (low, high) in [(0.0, 1.0), (0.123, 0.127), (-3.0, 1e4), (1e-6, 5e-6)] {
            let (found, step) = ticks((low, high));
            assert!((2..=8).contains(&found.len()), "{found:?}");
            assert!(found.iter().all(|tick| (low..=high).contains(tick)));
            let labels: Vec<String> = found.iter().map(|tick| label(*tick, step)).collect();
            let mut different = labels.clone();
            different.dedup();
            assert_eq!(labels, different);
        }
        assert_eq!(label(0.25, 0.05), "0.25");
        assert_eq!(label(200.0, 50.0), "200");
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.77213, 1.25, 123.456, 0.0, 3.5e-5, 1234567.0].map(significant);
        assert_eq!(
            all,
            [
                "0.7721", "1.2500", "123.46", "0.0000", "3.500e-5", "1.235e6"
            ]
        );
    }

    #[test]
    fn every_point_is_in_the_picture() {
        for points in [
            vec![(1.0, 2.0)],
            vec![(1.0, 5.0), (2.0, 5.0)],
            vec![(0.0, -1.0), (2.0, 1e9), (3.0, 0.0)],
        ] {
            let chart = Chart {
                title: "t".into(),
                series: vec![series(&points)],
            };
            let figure = chart.figure(0).unwrap();
            assert!(
                !figure.contains("NaN") && !figure.contains("inf"),
                "{figure}"
            );
            assert_eq!(figure.matches("<circle").count(), points.len());
            assert!(figure.contains("a &lt;run&gt;, step"));
            for cy in figure.split("cy=\"").skip(1) {
                let cy: f64 = cy.split('"').next().unwrap().parse().unwrap();
                assert!((TOP..=HEIGHT - BOTTOM).contains(&cy));
            }
        }
        let chart = Chart {
            title: "t".into(),
            series: vec![series(&[])],
        };
        assert!(chart.figure(0).is_none());
    }
}
