//! What is asked of the kernel and the drivers, and what their answers do: rule writes, lists of rules, qdiscs, features, probes.

use super::{Offload, OneSwitch, SwitchKey, ports};
use crate::config::OffloadMode;
use crate::engine::report::Severity;
use crate::engine::switch::Audited;
use crate::engine::{Engine, ticket_table};
use crate::model::{
    Block, IfIndex, InHardware, ObservedRule, Refusal, RuleOp, RuleOpKind, Ticket, Timestamp,
};
use crate::plan::RuleKey;
use crate::reconcile::{Item, OpClass, Remedy, RuleWrite, RuleWriteKind, remedy};
use crate::view::ports::Port;

/// How often refused rules are tried again.
const RETRY_REFUSED: std::time::Duration = std::time::Duration::from_secs(60);

/// How often counters are read where that costs little; drivers update theirs every second or two. Else the audit reads them.
const COUNTERS: std::time::Duration = std::time::Duration::from_secs(5);

/// Rules of a block that are few: reading a rule back costs as much as writing it.
const FEW_RULES: usize = 1000;

/// How full a table is when that is told, in percent, and how much less before it is told again.
const FULL: [usize; 2] = [80, 95];
const FULL_SWAY: usize = 5;

/// What an op on its way is.
#[derive(Debug, Clone)]
pub(super) enum Job {
    Rule(SwitchKey, Block, u32, u32),
    Qdisc(IfIndex),
    Qdiscs(IfIndex),
    Feature(IfIndex),
    Dump(Block),
    Probe(SwitchKey),
    Share(SwitchKey),
    ReadStrays(Block),
    RemoveStray,
}

impl Engine {
    /// Hands out writes to tc, at most about `budget`.
    pub fn poll_rule_ops(&mut self, now: Timestamp, budget: usize, out: &mut Vec<RuleOp>) {
        self.now = self.now.max(now);
        let before = out.len();
        self.poll_rules(budget, out);
        self.look_for_planned_rule();
        self.writes.rules.hand_out(self.now, out.len() - before);
    }

    fn poll_rules(&mut self, budget: usize, out: &mut Vec<RuleOp>) {
        if !self.is_listed() || self.config.offload.mode == OffloadMode::Off {
            return;
        }
        self.settle();
        self.settle_offload();
        self.offload.poll_strays(out);
        if !self.offload.is_active() {
            return;
        }
        let mut offload = std::mem::take(&mut self.offload);
        Self::poll_port_ops(&mut offload, out);
        if self.poll_probes(&mut offload, out) {
            // What was found out decides which ports may admit, and nothing else may happen for a while.
            self.offload = offload;
            self.settle_offload();
            offload = std::mem::take(&mut self.offload);
        }
        Self::poll_sharing(&mut offload, out);
        if offload.next_counters <= self.now {
            offload.next_counters = self.now + COUNTERS;
            offload.want_counters();
        }
        let retry = offload.next_retry <= self.now;
        if retry {
            offload.next_retry = self.now + RETRY_REFUSED;
            offload.forget_refusals();
        }
        self.poll_writes(&mut offload, budget, retry, out);
        self.note_full_tables(&mut offload);
        self.note_taken_filters(&mut offload);
        offload.poll_dumps(out);
        self.offload = offload;
    }

    /// Hands out what the rules of all switches need; what was refused is tried again if `retry`.
    fn poll_writes(
        &self,
        offload: &mut Offload,
        budget: usize,
        retry: bool,
        out: &mut Vec<RuleOp>,
    ) {
        let ending = offload.ending;
        let (facts, switches) = offload.split(self);
        let mut writes: Vec<(SwitchKey, RuleWrite)> = Vec::new();
        for (key, one) in switches {
            let mut of_one = Vec::new();
            let left = budget.saturating_sub(writes.len());
            // What a port that joins can't take would be refused to all.
            let waits = one.sharing.is_busy() && !ending;
            one.with(&facts, |rules, env| {
                if retry && rules.is_started() {
                    rules.retry_refused(env, self.now);
                }
                if rules.is_started() && rules.plan().wants_refill() {
                    rules.refill(env);
                }
                if !waits {
                    rules.poll(self.now, left, &mut of_one);
                }
            });
            writes.extend(of_one.into_iter().map(|write| (key.clone(), write)));
        }
        for (switch, write) in writes {
            let RuleWrite {
                index,
                revision,
                place,
                kind,
            } = write;
            let job = Job::Rule(switch, place.block, index, revision);
            let kind = match kind {
                RuleWriteKind::Put { rule, replace } => RuleOpKind::Put {
                    place,
                    rule: Box::new(rule.rule.clone()),
                    replace,
                },
                RuleWriteKind::Delete(protocol) => RuleOpKind::Delete { place, protocol },
            };
            out.push(offload.op(job, kind));
        }
    }

    fn note_full_tables(&mut self, offload: &mut Offload) {
        for (key, one) in &mut offload.switches {
            let (used, Some(capacity)) = one.rules.plan().usage() else {
                continue;
            };
            let evicted = one.rules.take_evicted();
            if let Some(first) = evicted.first() {
                let text = format!(
                    "switch {}: there is room for {capacity} rules; left hardware: {}, and {} more",
                    ports::switch_name(key),
                    self.view.route_text(*first),
                    evicted.len() - 1
                );
                self.notables
                    .push(self.now, Severity::Warn, "table-full", text);
            }
            let marks = FULL.into_iter();
            let reached = marks.filter(|mark| used * 100 >= capacity * mark).max();
            let reached = reached.unwrap_or(0);
            if reached > one.told_full {
                let on = ports::switch_name(key);
                let text = format!("switch {on}: {used} of {capacity} rules are in use");
                self.notables
                    .push(self.now, Severity::Warn, "table-filling", text);
            }
            // One that sways about a mark is told of once.
            let fell = (used * 100) < capacity * one.told_full.saturating_sub(FULL_SWAY);
            if reached > one.told_full || fell {
                one.told_full = reached;
            }
        }
    }

    pub(super) fn rule_done(&mut self, ticket: Ticket, result: Result<InHardware, Refusal>) {
        let Some(job) = self.offload.jobs.remove(&ticket.index) else {
            return;
        };
        // What a list shows is looked at when it comes.
        if !matches!(job, Job::Dump(_)) {
            self.hardware_changed();
        }
        match job {
            Job::Rule(switch, block, index, revision) => {
                let mut offload = std::mem::take(&mut self.offload);
                let (facts, switches) = offload.split(self);
                let now = self.now;
                let refused = switches.get_mut(&switch).and_then(|one| {
                    one.with(&facts, |rules, env| {
                        rules.complete(env, block, (index, revision), result, now)
                    })
                });
                if let Some(refused) = &refused
                    && let Item::Rule(RuleKey::Acl(filter)) = refused.item
                {
                    self.filter_refused(&mut offload, &switch, (block, filter), refused);
                } else if let Some(refused) = refused {
                    let text = refused.refusal.text.as_deref().unwrap_or("no reason given");
                    let errno = refused.refusal.errno;
                    let said = format!("{errno}: {text}");
                    // One line for each new kind of refusal: a full table refuses by the thousand.
                    if offload.last_refusal.as_ref() != Some(&said) {
                        let on = self.block_label(block);
                        self.notables.push(
                            self.now,
                            Severity::Warn,
                            "rule-refused",
                            format!("{on}: the driver refused {:?}: {said}", refused.item),
                        );
                        offload.last_refusal = Some(said);
                    }
                }
                self.offload = offload;
            }
            Job::Qdisc(dev) => match result {
                // What the writer does itself is not told by the watch, and another's may be older than its list.
                Ok(_) => self.offload.made_qdiscs.push(dev),
                Err(refusal) if remedy(OpClass::PortSetting, refusal.errno) == Remedy::Done => {
                    self.offload.made_qdiscs.push(dev);
                }
                // Asked for again with what else was refused.
                Err(refusal) => self.note_refusal(
                    &format!("a clsact qdisc on {}", self.view.name_of(dev)),
                    refusal.errno,
                    refusal.text.as_deref(),
                ),
            },
            Job::Qdiscs(dev) => {
                self.offload.asked_qdiscs.remove(&dev);
            }
            Job::Feature(dev) => {
                self.offload.others.refused_features.remove(&dev);
                if let Err(refusal) = result {
                    self.offload.others.refused_features.insert(dev);
                    self.note_refusal(
                        &format!("hw-tc-offload of {}", self.view.name_of(dev)),
                        refusal.errno,
                        refusal.text.as_deref(),
                    );
                }
            }
            Job::Probe(switch) => {
                if let Some(one) = self.offload.switches.get_mut(&switch)
                    && let Some((probe, asked)) = &mut one.probe
                    && let Some(asked) = asked.take()
                {
                    probe.answer(&asked, result.map(|_| ()));
                }
            }
            Job::Share(switch) => self.sharing_done(&switch, result),
            Job::Dump(block) => {
                if result.is_err() {
                    self.offload.dumping.remove(&block);
                    self.offload.wanted_dumps.insert(block);
                }
            }
            Job::ReadStrays(block) => self.strays_read(block, result),
            Job::RemoveStray => self.stray_removed(result),
        }
    }

    pub(super) fn rules_listed(&mut self, block: Block, rules: Vec<ObservedRule>) {
        self.offload.others.listed(block, &rules);
        let switch = self.offload.switches.values_mut().find(|one| {
            let of_it = |port: &Port| one.sharing.listed_block_of(port) == block;
            one.ports.ports.iter().any(of_it)
        });
        let Some(one) = switch else {
            self.strays_listed(block, rules);
            return;
        };
        let started = one.rules.is_started();
        // A list that is only for its counters says nothing of ports.
        self.offload.ports_changed |= one.listed.insert(block) || !started;
        one.sharing.recounted(block);
        if started {
            let Audited { mended, moved } = one.rules.audit(block, &rules);
            if moved || mended > 0 {
                self.hardware_changed();
            }
            if mended > 0 {
                self.counters.mended.rules += mended as u64;
                let on = self.block_label(block);
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "rules-mended",
                    format!("{on}: rules of ours that others had deleted or changed are written again: {mended}"),
                );
            }
        } else {
            let adopts = one.rules.find(block, rules);
            // Where zebra writes the routes nothing else tells that there was an earlier run: its rules stay until zebra has spoken.
            if adopts && self.session.epoch == 0 {
                self.session.hold(self.now);
            }
        }
    }
}

impl Offload {
    pub(super) fn op(&mut self, job: Job, kind: RuleOpKind) -> RuleOp {
        self.next_job = self.next_job.wrapping_add(1);
        let index = self.next_job;
        self.jobs.insert(index, job);
        RuleOp {
            ticket: Ticket {
                table: ticket_table::RULES,
                index,
                revision: 0,
            },
            kind,
        }
    }

    /// Counters are read where that costs little.
    fn want_counters(&mut self) {
        let few = |one: &&OneSwitch| {
            one.rules.is_started()
                && one
                    .rules
                    .tables()
                    .all(|(table, _)| table.held() <= FEW_RULES)
        };
        let blocks: Vec<Block> = self
            .switches
            .values()
            .filter(few)
            .flat_map(|one| one.listed.iter().copied())
            .collect();
        self.wanted_dumps.extend(blocks);
    }

    /// What was refused may be asked for again.
    fn forget_refusals(&mut self) {
        self.asked_qdiscs.clear();
        self.asked_features.clear();
        for one in self.switches.values_mut() {
            if one.was_busy() {
                one.verdict = None;
                if one.rules.is_empty() {
                    one.rules.stop();
                }
            }
        }
    }

    /// Asks for blocks to be read, each once at a time.
    fn poll_dumps(&mut self, out: &mut Vec<RuleOp>) {
        let wanted: Vec<Block> = self.wanted_dumps.iter().copied().collect();
        for block in wanted {
            let running = self
                .jobs
                .values()
                .any(|job| matches!(job, Job::Dump(b) if *b == block));
            if !running {
                self.wanted_dumps.remove(&block);
                self.dumping.remove(&block);
                out.push(self.op(Job::Dump(block), RuleOpKind::DumpRules(block)));
            }
        }
    }
}
