//! Bytes to model and back. Netlink and protobuf types stay inside; nothing here does I/O.

pub mod devlink;
pub mod ethtool;
pub mod ethtool_stats;
pub mod feedback;
pub mod flower;
pub mod foreign_route;
pub mod fpm;
pub mod fpm_pb;
pub mod fpm_zebra;
pub mod genl;
pub mod kernel_nexthop;
pub mod kernel_route;
pub mod netlink;
pub mod northbound;
pub mod packet_filter;
pub mod rtnl_conf;
pub mod rtnl_link;
pub mod rtnl_nexthop;
pub mod rtnl_route;
pub mod rtnl_stats;
pub mod tc;
mod tc_actions;
pub mod tc_qdisc;
