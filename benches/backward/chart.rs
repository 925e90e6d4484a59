//! The chart: a bar for each task and device, on a logarithmic scale of time.

use std::fmt::Write;

use crate::report::{Report, time};

const COLOURS: [&str; 5] = ["#4878a8", "#d0743c", "#5d9e5d", "#8f6aa8", "#8a8a8a"];
const BAR: usize = 12;
const LEFT: usize = 190;
const WIDTH: usize = 620;

/// The results as an SVG image.
pub fn draw(report: &Report) -> String {
    let (devices, tasks) = (report.devices(), report.tasks());
    let times: Vec<f64> = tasks
        .iter()
        .flat_map(|task| devices.iter().filter_map(|device| Some(report.get(device, task)?.median_s)))
        .collect();
    let low = times.iter().copied().fold(1.0, f64::min).log10().floor();
    let high = times.iter().copied().fold(1e-6, f64::max).log10().ceil().max(low + 1.0);
    let x = |seconds: f64| (seconds.log10() - low) / (high - low) * WIDTH as f64;
    let group = devices.len() * BAR + 10;
    let (top, bottom) = (30, 30 + tasks.len() * group);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 80,
        bottom + 30
    );
    // Writing to a string cannot fail.
    for (i, device) in devices.iter().enumerate() {
        let (at, colour) = (LEFT + i * 110, COLOURS[i % COLOURS.len()]);
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"8\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"17\">{device}</text>",
            at + 14
        );
    }
    for power in low as i32..=high as i32 {
        let at = LEFT as f64 + x(10f64.powi(power));
        let label = time(10f64.powi(power)).replace(".00", "").replace(".0", "");
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 16
        );
    }
    for (row, task) in tasks.iter().enumerate() {
        let y = top + row * group + 5;
        let middle = y + devices.len() * BAR / 2 + 4;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{task}</text>", LEFT - 8);
        for (i, device) in devices.iter().enumerate() {
            let Some(m) = report.get(device, task) else { continue };
            let (y, width, colour) = (y + i * BAR, x(m.median_s).max(1.0), COLOURS[i % COLOURS.len()]);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{}</text>",
                BAR - 2,
                LEFT as f64 + width + 4.0,
                y + BAR - 3,
                time(m.median_s)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
