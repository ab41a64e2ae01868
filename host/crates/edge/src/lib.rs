//! What the three edges (gateway, hub, the operator's API) share: the form of a failure and the pages that explain its code, how often a caller may call, and how many bytes may
//! be in flight. None of it knows a route or a service.

pub mod error_pages;
pub mod in_flight;
pub mod problem;
pub mod rates;
