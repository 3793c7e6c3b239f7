//! The parts without sockets and clocks, against models: random input, seeded simulations, properties.
//!
//! Each file is a subject. `cargo nextest run --test model bus_simulation::` runs one of them.

mod bus_ring;
mod bus_simulation;
mod bus_world;
mod channels;
mod gateway_simulation;
mod history_simulation;
mod history_world;
mod large_echo;
mod limits;
mod pubsub_simulation;
mod receiver_properties;
mod recovery_storm;
mod session_retire;
mod session_simulation;
mod simulation;
mod streams;
mod written;
