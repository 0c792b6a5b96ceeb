//! Curves as one self-contained SVG, both axes logarithmic: time on the left, memory on the right.

use std::fmt::Write as _;

use crate::{Curve, measure::Cost, thousands};

/// A panel's width in pixels.
const WIDTH: f64 = 400.0;
/// And its height.
const HEIGHT: f64 = 280.0;
/// Around the panels, for what is written there.
const MARGIN: f64 = 64.0;
/// Of a line of the legend.
const LINE: f64 = 20.0;
/// Told apart by people who see few colours, too.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#aa4499"];

/// From the smallest to the largest power of ten around some values.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value.log10()), high.max(value.log10())));
        let (from, to) = ((low + 1e-9).floor(), (high - 1e-9).ceil());
        Self { from, to: to.max(from + 1.0) }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.from) / (self.to - self.from)
    }

    fn decades(&self) -> Vec<f64> {
        let mut all = vec![self.from];
        while let Some(last) = all.last().copied().filter(|last| *last < self.to - 0.5) {
            all.push(last + 1.0);
        }
        all.into_iter().map(|power| 10.0_f64.powf(power)).collect()
    }
}

/// What a panel shows of a cost.
struct Shown {
    name: &'static str,
    dashes: &'static str,
    pick: fn(&Cost) -> f64,
}

/// The whole picture.
pub(crate) fn svg(title: &str, unit: &str, curves: &[Curve]) -> String {
    let rows = curves.len() + 1;
    #[expect(clippy::cast_precision_loss, reason = "a few lines")]
    let height = HEIGHT + 2.0 * MARGIN + LINE * rows as f64;
    let width = 2.0 * WIDTH + 3.0 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>How cost grows with {}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        escaped(title)
    );
    // What takes less than a millisecond is drawn as one.
    let time = [
        Shown { name: "wall", dashes: "", pick: |cost| cost.wall.max(0.001) },
        Shown { name: "CPU", dashes: " stroke-dasharray=\"5 4\"", pick: |cost| cost.cpu.max(0.001) },
    ];
    let memory = [Shown { name: "", dashes: "", pick: |cost| cost.memory.max(1.0) }];
    panel(&mut text, MARGIN, (&format!("{title}: seconds (wall; CPU is dashed)"), unit), curves, &time);
    panel(&mut text, WIDTH + 2.0 * MARGIN, ("MiB of the largest process", unit), curves, &memory);
    for (number, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few lines")]
        let y = HEIGHT + 1.75 * MARGIN + LINE * (number + 1) as f64;
        let _infallible = writeln!(
            text,
            "<path d=\"M{MARGIN} {:.1}h28\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 4.0,
            MARGIN + 36.0,
            escaped(&curve.name)
        );
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, left: f64, (title, unit): (&str, &str), curves: &[Curve], shown: &[Shown]) {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    #[expect(clippy::cast_precision_loss, reason = "sizes are small beside 2^53")]
    let x = Axis::around(points().map(|(size, _)| *size as f64));
    let y = Axis::around(points().flat_map(|(_, cost)| shown.iter().map(|each| (each.pick)(cost))));
    let across = |value: f64| left + WIDTH * x.place(value);
    let down = |value: f64| MARGIN + HEIGHT * (1.0 - y.place(value));
    let (bottom, middle) = (MARGIN + HEIGHT, left + WIDTH / 2.0);
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{words}");
    };
    line(format_args!("<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>", MARGIN - 16.0, escaped(title)));
    for value in x.decades() {
        let (at, label) = (across(value), number(value));
        line(format_args!("<path d=\"M{at:.1} {MARGIN}V{bottom}\" stroke=\"#ddd\"/>"));
        line(format_args!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 18.0));
    }
    for value in y.decades() {
        let (at, label) = (down(value), number(value));
        line(format_args!("<path d=\"M{left} {at:.1}h{WIDTH}\" stroke=\"#ddd\"/>"));
        line(format_args!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 6.0, at + 4.0));
    }
    line(format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 36.0, escaped(unit)));
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        for Shown { name, dashes, pick } in shown {
            #[expect(clippy::cast_precision_loss, reason = "sizes are small beside 2^53")]
            let places: Vec<(f64, f64)> = curve.points.iter().map(|(size, cost)| (across(*size as f64), down(pick(cost)))).collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            line(format_args!("<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes} points=\"{}\"/>", path.join(" ")));
            for ((x, y), (size, cost)) in places.iter().zip(&curve.points) {
                let said = format!("{} {name}: {} {unit}, {:.3}", curve.name, thousands(*size), pick(cost));
                line(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{}</title></circle>",
                    escaped(&said)
                ));
            }
        }
    }
}

/// A power of ten as people write it.
fn number(value: f64) -> String {
    if value < 0.999 {
        return format!("{value:.3}").trim_end_matches('0').to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a power of ten that a size has reached")]
    let whole = value.round() as u64;
    thousands(whole)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
