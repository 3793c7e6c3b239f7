//! What a simulation is made of: clients, the app that serves them, and the world they meet in.

pub mod address;
pub mod client;
pub mod link;
pub mod probe;
pub mod random;
pub mod settings;
pub mod wire;
pub mod world;
