//! A plot of lines, as SVG inside a page.

use std::fmt::Write;

/// Width and height of a plot, and the space around its axes, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 48.0;
/// Height of a line of the legend.
const LEGEND: f64 = 18.0;
/// The number of marks along an axis, about.
const MARKS: f64 = 5.0;
/// What rounding may add to a quotient.
const NEAR: f64 = 1e-9;
/// The number of styles of lines, which the page defines.
const STYLES: usize = 8;

/// One line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// Points in the order of x.
    pub(super) points: Vec<(f64, f64)>,
    /// `true` if it is what would be possible, and not a figure.
    pub(super) is_bound: bool,
}

/// A plot, whose axes begin at 0.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) series: Vec<Series>,
}

impl Plot {
    /// Returns the plot as an element of a page, or `None` if there is nothing to see.
    pub(super) fn svg(&self) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        points().next()?;
        let x = Axis::new(points().map(|(x, _)| *x), WIDTH - LEFT - RIGHT);
        let y = Axis::new(points().map(|(_, y)| *y), HEIGHT - TOP - BOTTOM);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let height = HEIGHT + LEGEND * self.series.len() as f64;
        let title = escape(&self.title);
        let mut svg = format!(
            "<figure><figcaption>{title}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"{title}\">\n"
        );
        for mark in x.marks() {
            let at = LEFT + x.place(mark);
            let label = Axis::label(mark);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 16.0
            );
        }
        for mark in y.marks() {
            let at = bottom - y.place(mark);
            let label = Axis::label(mark);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            bottom + 36.0,
            escape(self.x),
            (TOP + bottom) / 2.0,
            escape(self.y)
        );
        for (index, series) in self.series.iter().enumerate() {
            let place = |(px, py): &(f64, f64)| (LEFT + x.place(*px), bottom - y.place(*py));
            let style = if series.is_bound { "bound".to_owned() } else { format!("s{}", index % STYLES) };
            let path: Vec<_> =
                series.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(svg, "<polyline class=\"{style}\" points=\"{}\"/>", path.join(" "));
            for (point, (px, py)) in series.points.iter().zip(series.points.iter().map(place)) {
                let told = format!("{}: {} at {}", series.name, Axis::label(point.1), Axis::label(point.0));
                let _ = writeln!(
                    svg,
                    "<circle class=\"{style}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\">\
                     <title>{}</title></circle>",
                    escape(&told)
                );
            }
            let at = HEIGHT + LEGEND * index as f64;
            let _ = writeln!(
                svg,
                "<line class=\"{style}\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT + 28.0,
                LEFT + 36.0,
                at + 4.0,
                escape(&series.name)
            );
        }
        svg += "</svg></figure>\n";
        Some(svg)
    }
}

/// An axis from 0 to at least the largest value.
struct Axis {
    end: f64,
    step: f64,
    pixels: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, pixels: f64) -> Self {
        let largest = values.fold(0.0, f64::max);
        let largest = if largest > 0.0 { largest } else { 1.0 };
        // A step of 1, 2 or 5 times a power of ten.
        let unit = 10f64.powf((largest / MARKS).log10().floor());
        let wide = largest / MARKS / unit;
        let step = unit * [1.0, 2.0, 5.0].into_iter().find(|step| *step >= wide - NEAR).unwrap_or(10.0);
        Self { end: step * (largest / step - NEAR).ceil(), step, pixels }
    }

    /// Returns the distance of a value from the start of the axis, in pixels.
    fn place(&self, value: f64) -> f64 {
        value / self.end * self.pixels
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let step = self.step;
        (0..=(self.end / step).round() as u32).map(move |mark| f64::from(mark) * step)
    }

    /// Returns a value as people read it: 12.5 M.
    fn label(value: f64) -> String {
        let (value, unit) = match value {
            1e9.. => (value / 1e9, " G"),
            1e6.. => (value / 1e6, " M"),
            1e3.. => (value / 1e3, " k"),
            _ => (value, ""),
        };
        let digits = format!("{value:.3}");
        format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Returns a text as a page has it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks_and_hold_all_values() {
        for (largest, end, step) in [
            (0.0, 1.0, 0.2),
            (7.0, 8.0, 2.0),
            (1518.0, 2000.0, 500.0),
            (14_880_952.0, 15e6, 5e6),
            (0.024, 0.025, 0.005),
        ] {
            let axis = Axis::new([0.0, largest].into_iter(), 100.0);
            let is_close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
            assert!(
                is_close(axis.end, end) && is_close(axis.step, step),
                "{largest}: {} {}",
                axis.end,
                axis.step
            );
            assert!(axis.end >= largest);
            let last = axis.marks().last().unwrap();
            assert!(is_close(last, end) && is_close(axis.place(last), 100.0));
        }
        let labels = [0.0, 2.5, 999.0, 1500.0, 12.5e6, 2e9].map(Axis::label);
        assert_eq!(labels, ["0", "2.5", "999", "1.5 k", "12.5 M", "2 G"]);
    }

    #[test]
    fn points_lie_where_they_belong() {
        let series = |name: &str, is_bound| Series {
            name: name.to_owned(),
            points: vec![(0.0, 0.0), (1000.0, 50.0), (2000.0, 100.0)],
            is_bound,
        };
        let all = vec![series("a < b", false), series("most", true)];
        let plot = Plot { title: "T & C".to_owned(), x: "bytes", y: "frames/s", series: all };
        let svg = plot.svg().unwrap();
        let (middle, end) = ((LEFT + WIDTH - RIGHT) / 2.0, WIDTH - RIGHT);
        let (half, bottom) = ((TOP + HEIGHT - BOTTOM) / 2.0, HEIGHT - BOTTOM);
        let path = format!("points=\"{LEFT:.1},{bottom:.1} {middle:.1},{half:.1} {end:.1},{TOP:.1}\"");
        assert_eq!(svg.matches(&path).count(), 2, "{svg}");
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 6));
        assert!(svg.contains("class=\"s0\"") && svg.contains("class=\"bound\""));
        assert!(svg.contains("T &amp; C") && svg.contains(">a &lt; b<") && !svg.contains("a < b"));
        let empty = Plot { series: vec![Series { points: vec![], ..series("none", false) }], ..plot };
        assert_eq!(empty.svg(), None);
    }
}
