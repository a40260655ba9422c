//! How figures grow with history.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use connlog_testkit::database::connect;
use nix::sys::statvfs::statvfs;

use crate::ingest::{self, Size};
use crate::report::Report;
use crate::run::DAYS;
use crate::service::Service;
use crate::{fleet, history, reads};

/// Bytes that a row takes with all indexes, WAL and what is left free, generously.
const BYTES_PER_ROW: u64 = 900;
/// Rounds of writing.
const ROUNDS: u32 = 3;

/// What was measured at one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Rows of history.
    pub rows: i64,
    /// Events a second.
    pub rate: f64,
    /// p95 of a first page without a filter, in ms.
    pub first_page: f64,
    /// p95 of a first page of the slowest search, in ms.
    pub worst_page: f64,
}

/// Measures on the database of `rows` rows, and on further ones beside it that are made and dropped.
pub(crate) async fn measure(
    database_url: &str,
    rows: i64,
    sizes: &[i64],
    size: Size,
    report: &mut Report,
) -> Result<Vec<Point>> {
    let mut points = vec![point(database_url, rows, size).await?];
    let client = connect(database_url).await?;
    for &rows in sizes {
        let folder: String = client.query_one("SHOW data_directory", &[]).await?.get(0);
        let disk = statvfs(folder.as_str())?;
        let free = disk.blocks_available() * disk.fragment_size();
        let needed = u64::try_from(rows)? * BYTES_PER_ROW;
        ensure!(free > needed, "{rows} rows need {} GB of disk, {} are free", needed >> 30, free >> 30);
        println!("filling another database with {rows} rows");
        let name = format!("growth_{rows}");
        client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let url = database_url.rsplit_once('/').context("a URL with a database")?.0.to_owned() + "/" + &name;
        history::generate(&url, rows, DAYS, Utc::now().date_naive()).await?;
        points.push(point(&url, rows, size).await?);
        client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    }
    points.sort_by_key(|point| point.rows);
    let (Some(least), Some(most)) = (points.first(), points.last()) else { return Ok(points) };
    report.add("load.growth_ingest", most.rate, least.rate);
    report.add("load.growth_first_page", most.first_page, least.first_page);
    report.add("load.growth_worst_filter", most.worst_page, least.worst_page);
    Ok(points)
}

async fn point(database_url: &str, rows: i64, size: Size) -> Result<Point> {
    let client = connect(database_url).await?;
    let agents = fleet::enlist(&client, size.agents).await?;
    let query = Service::start(database_url).await?;
    let first_page = reads::first_page_p95(&query).await?;
    let worst_page = reads::worst_page_p95(&query).await?;
    let service = ingest::start(database_url, &[])?;
    let rates = ingest::rates(database_url, &service, &agents, Size { rounds: ROUNDS, ..size }).await?;
    let point = Point { rows, rate: crate::median(rates), first_page, worst_page };
    println!(
        "at {rows} rows: {:.0} events/s, a first page {first_page:.1} ms, the slowest search {worst_page:.1} ms (p95)",
        point.rate
    );
    Ok(point)
}

/// The size of the chart, and of the panels in it, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const PANEL: (f64, f64) = (270.0, 150.0);

/// Two panels, writing and reading, over the rows of history in powers of ten; from zero, so that growth looks like growth.
pub(crate) fn chart(points: &[Point]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Events a second, and milliseconds of a page, over the rows of history</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let writing = [("events/s", "#1f5fa8", "", points.iter().map(|point| point.rate).collect())];
    let reading = [
        ("first page", "#1f5fa8", "", points.iter().map(|point| point.first_page).collect()),
        ("slowest search", "#a84a1f", "6 4", points.iter().map(|point| point.worst_page).collect()),
    ];
    panel(&mut svg, 60.0, "Writing: events a second", points, &writing);
    panel(&mut svg, 420.0, "Reading: p95 of a page in ms", points, &reading);
    svg.push_str("</svg>\n");
    svg
}

type Line<'a> = (&'a str, &'a str, &'a str, Vec<f64>);

fn panel(svg: &mut String, left: f64, title: &str, points: &[Point], lines: &[Line<'_>]) {
    let (top, bottom) = (50.0, 50.0 + PANEL.1);
    let most = lines.iter().flat_map(|line| &line.3).copied().fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 rows")]
    let position = |rows: i64| (rows as f64).log10();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let span = (position(last.rows) - position(first.rows)).max(1.0);
    let x = |rows: i64| left + 10.0 + (PANEL.0 - 60.0) * (position(rows) - position(first.rows)) / span;
    let y = |value: f64| bottom - (PANEL.1 - 10.0) * value / most.max(f64::MIN_POSITIVE);
    let mut text = format!(
        "<text x=\"{left}\" y=\"30\" font-weight=\"bold\">{title}</text>\n\
         <path d=\"M{left} {top}V{bottom}H{}\" fill=\"none\" stroke=\"#444\"/>\n",
        left + PANEL.0
    );
    for point in points {
        let label = if point.rows >= 1_000_000 {
            format!("{} M", point.rows / 1_000_000)
        } else {
            format!("{} k", point.rows / 1_000)
        };
        let _infallible = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
            x(point.rows),
            bottom + 18.0
        );
    }
    for (number, (name, color, dashes, values)) in lines.iter().enumerate() {
        let path: Vec<String> =
            points.iter().zip(values).map(|(point, value)| format!("{:.1} {:.1}", x(point.rows), y(*value))).collect();
        let _infallible = writeln!(
            text,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            path.join("L")
        );
        for (point, value) in points.iter().zip(values) {
            let shown = if *value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
            let _infallible = writeln!(
                text,
                "<circle cx=\"{0:.1}\" cy=\"{1:.1}\" r=\"3\" fill=\"{color}\"/><text x=\"{0:.1}\" y=\"{2:.1}\" fill=\"{color}\" text-anchor=\"middle\">{shown}</text>",
                x(point.rows),
                y(*value),
                y(*value) - 8.0
            );
        }
        let _infallible = writeln!(
            text,
            "<text x=\"{left}\" y=\"{}\" fill=\"{color}\">{name}</text>",
            bottom + 36.0 + 14.0 * f64::from(u8::try_from(number).unwrap_or(0))
        );
    }
    svg.push_str(&text);
}
