//! The same as pictures: CPU time for an operation, throughput against latency, and memory over time.

use super::report::{Report, Who, named};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 540);

/// Draws `cpu.svg`, `latency.svg` and `memory.svg`.
pub fn draw(report: &Report, folder: &Path) -> Result<(), String> {
    let drawn = cpu(report, &folder.join("cpu.svg"))
        .and_then(|()| latency(report, &folder.join("latency.svg")))
        .and_then(|()| memory(report, &folder.join("memory.svg")));
    drawn.map_err(|error| format!("cannot draw in {}: {error}", folder.display()))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn colour(at: usize) -> RGBColor {
    [BLUE, RED, GREEN, MAGENTA, CYAN, BLACK][at % 6]
}

/// For each row the multiple of the limit's CPU time.
fn cpu(report: &Report, path: &Path) -> Drawn {
    let (who, rows) = (report.contestants(), &report.rows);
    let times = |row: usize, who: Who| {
        let row = &rows[row];
        let limit = report.medians.get(&(row.id, (row.limit, 1)))?;
        report.medians.get(&(row.id, who)).map(|found| found.cpu_us / limit.cpu_us.max(f64::EPSILON))
    };
    let all = (0..rows.len()).flat_map(|row| who.iter().filter_map(move |who| times(row, *who)));
    let most = all.fold(1.0_f64, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Server CPU for one operation, as a multiple of the limit's", ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(120)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..rows.len() as f64, (0.5..most * 1.2).log_scale())?;
    let label = |x: &f64| rows.get(*x as usize).map_or("", |row| row.id).to_owned();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len())
        .x_label_formatter(&label)
        .x_label_style(("sans-serif", 12).into_font().transform(FontTransform::Rotate90))
        .y_desc("× limit")
        .draw()?;
    let width = 0.8 / who.len().max(1) as f64;
    for (at, contestant) in who.iter().enumerate() {
        let bars = (0..rows.len()).filter_map(|row| {
            let left = row as f64 + 0.1 + at as f64 * width;
            times(row, *contestant)
                .map(|times| Rectangle::new([(left, 0.5), (left + width, times)], colour(at).filled()))
        });
        chart
            .draw_series(bars)?
            .label(named(contestant.0, contestant.1))
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour(at).filled()));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// Puts of more and more clients.
fn latency(report: &Report, path: &Path) -> Drawn {
    let puts = report.rows.iter().filter(|row| row.id.starts_with("put-")).collect::<Vec<_>>();
    let points = |who: Who| {
        let found = puts.iter().filter_map(|row| report.medians.get(&(row.id, who)));
        found.map(|found| (found.per_second, found.p50.max(0.01))).collect::<Vec<_>>()
    };
    let who = report.contestants();
    let all = who.iter().flat_map(|who| points(*who)).collect::<Vec<_>>();
    if all.is_empty() {
        return Ok(());
    }
    let most = |value: fn(&(f64, f64)) -> f64| all.iter().map(value).fold(0.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Puts: throughput and median latency, from 1 client to 1,000", ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most(|point| point.0) * 1.1, (0.05..most(|point| point.1) * 2.0).log_scale())?;
    chart.configure_mesh().x_desc("puts/s").y_desc("median, ms").draw()?;
    for (at, contestant) in who.iter().enumerate() {
        let points = points(*contestant);
        chart
            .draw_series(LineSeries::new(points.clone(), colour(at).stroke_width(2)).point_size(4))?
            .label(named(contestant.0, contestant.1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour(at).stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// Resident memory of all processes of a server, after each run.
fn memory(report: &Report, path: &Path) -> Drawn {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let end = report.figures.iter().map(|figure| figure.at).fold(1.0, f64::max);
    let most = report.figures.iter().map(|figure| mib(figure.resident_bytes)).fold(1.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Resident memory of all processes", ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc("seconds").y_desc("MiB").draw()?;
    for (at, contestant) in report.contestants().iter().enumerate() {
        let own = report.figures.iter().filter(|figure| (figure.product, figure.members) == *contestant);
        let points = own.map(|figure| (figure.at, mib(figure.resident_bytes))).collect::<Vec<_>>();
        chart
            .draw_series(LineSeries::new(points, colour(at).stroke_width(2)))?
            .label(named(contestant.0, contestant.1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour(at).stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
