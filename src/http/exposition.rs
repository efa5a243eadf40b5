//! The two texts in which Prometheus reads figures.
//!
//! ```text
//! # HELP redis_commands_total Calls of a command.
//! # TYPE redis_commands_total counter             OpenMetrics: # TYPE redis_commands counter
//! redis_commands_total{cmd="get"} 12              and # EOF at the end
//! ```
//!
//! They are written here and not by a library: `prometheus-client` writes OpenMetrics alone and forces `_total` onto
//! every counter, and redis_exporter's names, which dashboards look for, do not keep to that.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Which of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Samples with `quantile`, and `_sum` and `_count`.
    Summary,
    /// `_bucket` with `le`, `_sum` and `_count`.
    Histogram,
}

/// Figures of one name.
#[derive(Debug)]
struct Family {
    kind: Kind,
    help: String,
    /// What stands behind the name, labels as they are written, with the values.
    samples: Vec<(String, f64)>,
}

/// All figures by name.
#[derive(Debug, Default)]
pub(super) struct Families(BTreeMap<String, Family>);

impl Form {
    /// The one that a client prefers, by its `Accept`.
    pub(super) fn accepted(accept: &str) -> Form {
        let quality = |wanted: &str| {
            let range = accept.split(',').find(|range| range.split(';').next().is_some_and(|r| r.trim() == wanted));
            let weight = |range: &str| {
                let q = range.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q=").map(str::to_owned));
                q.map_or(Some(1.0), |q| q.parse::<f64>().ok())
            };
            range.map_or(0.0, |range| weight(range).unwrap_or(0.0))
        };
        let openmetrics = quality("application/openmetrics-text");
        if openmetrics > 0.0 && openmetrics >= quality("text/plain") { Form::OpenMetrics } else { Form::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Families {
    /// Adds a figure. The first of a name says what it is.
    pub(super) fn add(&mut self, name: &str, kind: Kind, help: &str, labels: &[(&str, &str)], value: f64) {
        self.add_part(name, kind, help, "", labels, value);
    }

    /// Adds a figure of a summary or histogram, whose name ends so.
    pub(super) fn add_part(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        end: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let mut written = end.to_owned();
        for (at, (label, value)) in labels.iter().enumerate() {
            let sign = if at == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(written, "{sign}{label}=\"{value}\"").expect("a String takes every write");
        }
        if !labels.is_empty() {
            written.push('}');
        }
        let new = || Family { kind, help: help.to_owned(), samples: Vec::new() };
        let family = self.0.entry(name.to_owned()).or_insert_with(new);
        if !family.samples.iter().any(|(known, _)| *known == written) {
            family.samples.push((written, value));
        }
    }

    /// The text.
    pub(super) fn text(&self, form: Form) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let (of_type, kind) = match (family.kind, form, name.strip_suffix("_total")) {
                (Kind::Counter, Form::OpenMetrics, Some(stem)) => (stem, "counter"),
                // There, the name of a counter ends so.
                (Kind::Counter, Form::OpenMetrics, None) => (&**name, "unknown"),
                (Kind::Counter, Form::Prometheus, _) => (&**name, "counter"),
                (Kind::Gauge, ..) => (&**name, "gauge"),
                (Kind::Summary, ..) => (&**name, "summary"),
                (Kind::Histogram, ..) => (&**name, "histogram"),
            };
            write!(text, "# HELP {of_type} {}\n# TYPE {of_type} {kind}\n", family.help)
                .expect("a String takes every write");
            let mut samples: Vec<&(String, f64)> = family.samples.iter().collect();
            if matches!(family.kind, Kind::Summary | Kind::Histogram) {
                // The parts of one stand together.
                samples.sort_by_key(|(written, _)| labels_of(written));
            }
            for (labels, value) in samples {
                writeln!(text, "{name}{labels} {value}").expect("a String takes every write");
            }
        }
        if form == Form::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

/// The labels of a sample, without the one that tells the parts of a summary or histogram apart.
fn labels_of(written: &str) -> &str {
    let labels = written.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
    let part = labels.rfind("quantile=\"").or_else(|| labels.rfind("le=\""));
    part.map_or(labels, |at| labels[..at].trim_end_matches(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_text_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
        for other in ["", "*/*", "text/plain", "application/openmetrics-text;q=0.1,text/plain;q=0.9", "a;q=,;;,"] {
            assert_eq!(Form::accepted(other), Form::Prometheus, "{other}");
        }
    }

    #[test]
    fn the_parts_of_a_summary_stand_together() {
        let mut families = Families::default();
        for cmd in ["set", "get"] {
            let labels = [("cmd", cmd), ("quantile", "50")];
            families.add("s", Kind::Summary, "Spread.", &labels, 1.0);
        }
        for (cmd, end) in [("get", "_sum"), ("set", "_sum"), ("set", "_count"), ("get", "_count")] {
            families.add_part("s", Kind::Summary, "Spread.", end, &[("cmd", cmd)], 2.0);
        }
        let of = |cmd: &str| {
            format!("s{{cmd=\"{cmd}\",quantile=\"50\"}} 1\ns_sum{{cmd=\"{cmd}\"}} 2\ns_count{{cmd=\"{cmd}\"}} 2\n")
        };
        let text = format!("# HELP s Spread.\n# TYPE s summary\n{}{}", of("get"), of("set"));
        assert_eq!(families.text(Form::Prometheus), text);
    }

    #[test]
    fn both_texts_are_as_they_are_defined() {
        let mut families = Families::default();
        families.add("c_total", Kind::Counter, "Counted.", &[("a", "x\"\\\n"), ("b", "y")], 1.0);
        families.add("c_total", Kind::Counter, "Counted.", &[], 2.5);
        families.add("c_total", Kind::Counter, "Counted.", &[], 3.0);
        families.add("d", Kind::Counter, "Odd.", &[], 1e18);
        families.add("g", Kind::Gauge, "Now.", &[], -1.0);
        families.add_part("h", Kind::Histogram, "Spread.", "_bucket", &[("le", "+Inf")], 2.0);
        families.add_part("h", Kind::Histogram, "Spread.", "_sum", &[], 5.0);
        let samples = "c_total{a=\"x\\\"\\\\\\n\",b=\"y\"} 1\nc_total 2.5\n";
        let histogram = "# HELP h Spread.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 5\n";
        let prometheus = format!(
            "# HELP c_total Counted.\n# TYPE c_total counter\n{samples}# HELP d Odd.\n# TYPE d counter\n\
             d 1000000000000000000\n# HELP g Now.\n# TYPE g gauge\ng -1\n{histogram}"
        );
        assert_eq!(families.text(Form::Prometheus), prometheus);
        let openmetrics = format!(
            "# HELP c Counted.\n# TYPE c counter\n{samples}# HELP d Odd.\n# TYPE d unknown\n\
             d 1000000000000000000\n# HELP g Now.\n# TYPE g gauge\ng -1\n{histogram}# EOF\n"
        );
        assert_eq!(families.text(Form::OpenMetrics), openmetrics);
    }
}
