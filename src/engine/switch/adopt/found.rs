//! What stands in the blocks before the start: noted as the lists come, and what must not wait for the start taken out. Knows
//! nothing of what is wished.

use rustc_hash::FxHashMap;

use super::Switch;
use super::meaning::{goto, is_ours};
use crate::model::{Block, Chain, EtherProto, Family, ObservedRule, RuleMatch, RulePlace, TableId};
use crate::plan::{Marked, read_mark};

impl Switch {
    /// Notes all rules that stand in a block, ours or not, before the start; whether prefixes of an earlier run are among them.
    pub fn find(&mut self, block: Block, rules: Vec<ObservedRule>) -> bool {
        let of_prefix = |rule: &ObservedRule| {
            matches!(rule.cookie.and_then(read_mark), Some(Marked::Route(..)))
        };
        let adopts = rules.iter().any(of_prefix);
        self.found.insert(block, rules);
        adopts
    }

    /// Rules of a probe that was cut off, among those that were found.
    pub fn left_by_probe(&self, block: Block) -> Vec<(RulePlace, EtherProto)> {
        let found = self.found.get(&block).into_iter().flatten();
        found
            .filter(|rule| rule.cookie.and_then(read_mark) == Some(Marked::Probe))
            .filter_map(|rule| Some((rule.place, rule.rule.as_ref()?.protocol)))
            .collect()
    }

    /// Whether rules of an earlier run wait for the start.
    pub fn has_found_ours(&self) -> bool {
        self.found.values().flatten().any(is_ours)
    }

    /// Takes out of what was found, before the start, the rules by which packets of a family come in at a port where that must
    /// not be: whoever has them removed need not wait until all is known. `lets` is asked with the match, which may name the port and
    /// the VLAN, and with the table that is looked up behind it, if anything stands there.
    pub fn take_admission(
        &mut self,
        lets: impl Fn(Block, &RuleMatch, Family, Option<TableId>) -> bool,
    ) -> Vec<(RulePlace, EtherProto)> {
        let mut taken = Vec::new();
        for (block, found) in &mut self.found {
            let table_of = |observed: &ObservedRule| match read_mark(observed.cookie?)? {
                Marked::Route(table, _) | Marked::Except(table, _) => {
                    Some((observed.place.chain, table))
                }
                _ => None,
            };
            let behind: FxHashMap<Chain, TableId> = found.iter().filter_map(table_of).collect();
            found.retain(|observed| {
                let (Some(marked), Some(rule)) =
                    (observed.cookie.and_then(read_mark), &observed.rule)
                else {
                    return true;
                };
                let (family, table) = match marked {
                    Marked::Admit(family) => {
                        let chain = goto(rule);
                        (family, chain.and_then(|chain| behind.get(&chain).copied()))
                    }
                    // In the flat layout packets come in by these.
                    Marked::Route(table, family) if observed.place.chain == Chain::ENTRY => {
                        (family, Some(table))
                    }
                    _ => return true,
                };
                let stays = lets(*block, &rule.matches, family, table);
                if !stays {
                    taken.push((observed.place, rule.protocol));
                }
                stays
            });
        }
        taken
    }
}
