//! The payload of a filter or qdisc message. What reads as a rule can be written, and reads back the same.
#![no_main]

use frr_offload::wire::flower::{ShownFilter, WritableRule, decode_filter, encode_put_rule};
use frr_offload::wire::netlink::{Envelope, Messages};
use frr_offload::wire::tc_qdisc::decode_qdisc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    decode_qdisc(payload);
    let Some(ShownFilter::Rule(observed)) = decode_filter(payload) else {
        return;
    };
    let Some(rule) = &observed.rule else {
        return;
    };
    let mut buffer = Vec::new();
    let envelope = Envelope {
        buffer: &mut buffer,
        seq: 1,
    };
    let writable = WritableRule::new(rule).expect("a rule that reads can be written");
    encode_put_rule(envelope, &observed.place, writable, false);
    let message = Messages::new(&buffer).next().unwrap().unwrap();
    match decode_filter(message.payload) {
        Some(ShownFilter::Rule(again)) => assert_eq!(again.rule.as_ref(), Some(rule)),
        other => panic!("{other:?}"),
    }
});
