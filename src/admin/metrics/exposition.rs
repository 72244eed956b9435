//! A scrape as text: the formats, and how a metric is written. `families` says which metrics there are.
//!
//! The library writes `OpenMetrics`. Who does not ask for that gets the older text format, in which the name of a counter
//! has its `_total` everywhere and units and the end are not told.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::scraper::Scrape;

/// What the text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus' own, 0.0.4.
    Prometheus,
}

impl Format {
    /// By the `Accept` headers: `OpenMetrics` for who names it.
    pub(super) fn wanted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let named = |value: &str| {
            let mut kinds = value.split(',');
            kinds.any(|kind| {
                kind.trim_start()
                    .starts_with("application/openmetrics-text")
            })
        };
        if accept.into_iter().any(named) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The text of a scrape.
pub(super) fn exposition(scrape: Scrape, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => as_prometheus(&text),
    })
}

/// `OpenMetrics` text in the older format.
fn as_prometheus(text: &str) -> String {
    let types: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let Some((what, name, rest)) = line.strip_prefix("# ").and_then(|comment| {
            let (what, rest) = comment.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((what, name, rest))
        }) else {
            if line != "# EOF" {
                out += line;
                out.push('\n');
            }
            continue;
        };
        let (name, kind) = match types.get(name).copied() {
            Some("counter") => (format!("{name}_total"), "counter"),
            Some("info") => (format!("{name}_info"), "gauge"),
            Some(kind) => (name.to_owned(), kind),
            None => (name.to_owned(), "untyped"),
        };
        match what {
            "HELP" => out += &format!("# HELP {name} {rest}\n"),
            "TYPE" => out += &format!("# TYPE {name} {kind}\n"),
            // Units have no place in it.
            _ => {}
        }
    }
    out
}

/// Name, unit and help of a metric. Its unit is written behind the name, and `_total` behind that of a counter.
pub(super) type About<'a> = (&'a str, Option<Unit>, &'a str);

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics one after the other.
pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

impl Page<'_> {
    pub(super) fn one(
        &mut self,
        (name, unit, help): About<'_>,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        let kind = metric.metric_type();
        let encoder = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        metric.encode(encoder)
    }

    pub(super) fn gauge(&mut self, about: About<'_>, value: f64) -> fmt::Result {
        self.one(about, &ConstGauge::new(value))
    }

    /// A number that may not be known.
    pub(super) fn known(&mut self, about: About<'_>, value: Option<u64>) -> fmt::Result {
        match value {
            Some(value) => self.count(about, value),
            None => self.gauges(about, []),
        }
    }

    pub(super) fn count(&mut self, about: About<'_>, value: u64) -> fmt::Result {
        self.one(about, &ConstGauge::new(value))
    }

    pub(super) fn counter(&mut self, about: About<'_>, value: u64) -> fmt::Result {
        self.one(about, &ConstCounter::new(value))
    }

    pub(super) fn gauges<'l>(
        &mut self,
        about: About<'_>,
        series: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let series = series.into_iter();
        let series = series.map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(about, MetricType::Gauge, series)
    }

    pub(super) fn counters<'l>(
        &mut self,
        about: About<'_>,
        series: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let series = series.into_iter();
        let series = series.map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(about, MetricType::Counter, series)
    }

    /// Also one without a series is named, so that whoever looks for it finds it.
    pub(super) fn family<'l, M: EncodeMetric>(
        &mut self,
        (name, unit, help): About<'_>,
        kind: MetricType,
        series: impl Iterator<Item = (Labels<'l>, M)>,
    ) -> fmt::Result {
        let unit = unit.as_ref();
        let mut encoder = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, metric) in series {
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_names_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::wanted([prometheus]), Format::OpenMetrics);
        assert_eq!(
            Format::wanted(["text/html, application/openmetrics-text"]),
            Format::OpenMetrics
        );
        assert_eq!(Format::wanted(["*/*"]), Format::Prometheus);
        assert_eq!(Format::wanted([]), Format::Prometheus);
    }

    #[test]
    fn the_older_format_has_its_own_words() {
        let text = "# HELP a A thing.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n\
                    # HELP b_seconds B.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 2.5\n\
                    # HELP c C.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        assert_eq!(
            as_prometheus(text),
            "# HELP a_total A thing.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n\
             # HELP b_seconds B.\n# TYPE b_seconds gauge\nb_seconds 2.5\n\
             # HELP c_info C.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n"
        );
    }
}
