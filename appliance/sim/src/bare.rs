//! A production engine on one simulated disk: see [`world`].

mod audit;
mod client;
mod limit;
mod manage;
mod nodes;
mod operator;
mod plan;
mod scars;
mod watch;
mod world;

pub use plan::{BarePlan, Mix};
pub use world::run_bare;
