//! The words of the filters: from the command line and from admin requests into the engine's [`RouteFilter`] and
//! [`OffloadRuleFilter`].

use thiserror::Error;

use super::proto::{OffloadRequest, RoutesRequest};
use crate::engine::report::{OffloadRuleFilter, OffloadState, RouteFilter, RuleKind};
use crate::model::{Family, Protocol, Reason, SourceId, TableId};

/// The word that stands for the default VRF.
pub(super) const DEFAULT_VRF: &str = "default";

/// A filter that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// Neither a name of FRR's nor a number.
    #[error(
        "no such protocol; FRR's names are {}, or give the number",
        known_protocols()
    )]
    Protocol,
    /// Not in the list of reasons.
    #[error("no such reason; there are {}", known_reasons())]
    Reason,
    /// Not a source.
    #[error("no such source; there is fpm")]
    Source,
    /// A field of a request that does not parse.
    #[error("{0} can't be understood")]
    Field(&'static str),
}

/// A protocol by FRR's name or by number.
pub(super) fn protocol(word: &str) -> Result<Protocol, FilterError> {
    let by_name = protocols().find(|protocol| protocol.name() == Some(word));
    by_name
        .or_else(|| word.parse().ok().map(Protocol))
        .ok_or(FilterError::Protocol)
}

/// A reason by its code.
pub(super) fn reason(word: &str) -> Result<Reason, FilterError> {
    Reason::from_code(word).ok_or(FilterError::Reason)
}

/// A source by its name.
pub(super) fn source(word: &str) -> Result<SourceId, FilterError> {
    SourceId::ALL
        .into_iter()
        .find(|source| source.name() == word)
        .ok_or(FilterError::Source)
}

fn protocols() -> impl Iterator<Item = Protocol> {
    (0..=u8::MAX).map(Protocol)
}

fn known_protocols() -> String {
    let names: Vec<&str> = protocols().filter_map(Protocol::name).collect();
    names.join(", ")
}

fn known_reasons() -> String {
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    codes.join(", ")
}

/// Which routes a request wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: RouteFilter,
    pub(super) limit: usize,
}

/// Which rules a request wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedRules {
    pub(super) filter: OffloadRuleFilter,
    /// A VRF whose table the engine has to be asked for.
    pub(super) vrf: Option<String>,
    pub(super) limit: usize,
}

impl TryFrom<RoutesRequest> for Wanted {
    type Error = FilterError;

    fn try_from(request: RoutesRequest) -> Result<Self, FilterError> {
        let RoutesRequest {
            prefix,
            longer,
            vrf,
            table,
            protocol: protocol_word,
            source: source_word,
            dev,
            via,
            reason: reason_word,
            family,
            offload,
            limit,
        } = request;
        let family = match family.as_deref() {
            None => None,
            Some("ipv4") => Some(Family::V4),
            Some("ipv6") => Some(Family::V6),
            Some(_) => return Err(FilterError::Field("family")),
        };
        let filter = RouteFilter {
            prefix: parse(prefix, "prefix")?,
            longer,
            vrf: vrf.map(String::into_boxed_str),
            table: table.map(TableId),
            protocol: protocol_word.as_deref().map(protocol).transpose()?,
            source: source_word.as_deref().map(source).transpose()?,
            dev: dev.map(String::into_boxed_str),
            via: parse(via, "via")?,
            reason: reason_word.as_deref().map(reason).transpose()?,
            family,
            offload: one_of(offload, OffloadState::ALL, OffloadState::name, "offload")?,
        };
        Ok(Self {
            filter,
            limit: at_most(limit),
        })
    }
}

impl TryFrom<OffloadRequest> for WantedRules {
    type Error = FilterError;

    fn try_from(request: OffloadRequest) -> Result<Self, FilterError> {
        let OffloadRequest {
            prefix,
            vrf,
            table,
            dev,
            kind,
            limit,
        } = request;
        let filter = OffloadRuleFilter {
            prefix: parse(prefix, "prefix")?,
            table: table.map(TableId),
            dev: dev.map(String::into_boxed_str),
            kind: one_of(kind, RuleKind::ALL, RuleKind::name, "kind")?,
        };
        Ok(Self {
            filter,
            vrf,
            limit: at_most(limit),
        })
    }
}

fn at_most(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

fn one_of<T: Copy, const N: usize>(
    word: Option<String>,
    all: [T; N],
    name: fn(T) -> &'static str,
    field: &'static str,
) -> Result<Option<T>, FilterError> {
    let find = |word: String| all.into_iter().find(|value| name(*value) == word);
    word.map(|word| find(word).ok_or(FilterError::Field(field)))
        .transpose()
}

fn parse<T: std::str::FromStr>(
    word: Option<String>,
    field: &'static str,
) -> Result<Option<T>, FilterError> {
    word.map(|word| word.parse().map_err(|_| FilterError::Field(field)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_go_by_name_or_number() {
        assert_eq!(protocol("bgp"), Ok(Protocol(186)));
        assert_eq!(protocol("17"), Ok(Protocol(17)));
        assert_eq!(protocol("256"), Err(FilterError::Protocol));
        let help = protocol("bpg").unwrap_err().to_string();
        assert!(help.contains("bgp") && help.contains("static"), "{help}");
    }

    #[test]
    fn a_request_becomes_a_filter() {
        let request = RoutesRequest {
            prefix: Some("10.0.0.0/8".to_owned()),
            longer: true,
            protocol: Some("bgp".to_owned()),
            family: Some("ipv4".to_owned()),
            offload: Some("hardware".to_owned()),
            limit: Some(5),
            ..RoutesRequest::default()
        };
        let wanted = Wanted::try_from(request).unwrap();
        assert_eq!(wanted.filter.protocol, Some(Protocol(186)));
        assert_eq!(wanted.filter.family, Some(Family::V4));
        assert_eq!(wanted.limit, 5);
        assert_eq!(wanted.filter.offload, Some(OffloadState::Hardware));

        let bad = RoutesRequest {
            via: Some("gateway".to_owned()),
            ..RoutesRequest::default()
        };
        assert_eq!(Wanted::try_from(bad), Err(FilterError::Field("via")));
        let bad = RoutesRequest {
            offload: Some("sometimes".to_owned()),
            ..RoutesRequest::default()
        };
        assert_eq!(Wanted::try_from(bad), Err(FilterError::Field("offload")));
    }

    #[test]
    fn a_request_for_rules_becomes_a_filter() {
        let request = OffloadRequest {
            table: Some(10),
            kind: Some("guard".to_owned()),
            ..OffloadRequest::default()
        };
        let wanted = WantedRules::try_from(request).unwrap();
        assert_eq!(wanted.filter.kind, Some(RuleKind::Guard));
        assert_eq!(wanted.filter.table, Some(TableId(10)));
        assert_eq!(wanted.limit, usize::MAX);

        let bad = OffloadRequest {
            kind: Some("rule".to_owned()),
            ..OffloadRequest::default()
        };
        assert_eq!(WantedRules::try_from(bad), Err(FilterError::Field("kind")));
    }
}
