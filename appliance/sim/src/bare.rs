//! A production engine on one simulated disk: see [`world`].

mod audit;
mod client;
mod operator;
mod plan;
mod world;

pub use plan::{BarePlan, Mix};
pub use world::run_bare;
