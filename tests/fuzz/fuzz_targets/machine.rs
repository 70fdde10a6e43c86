#![no_main]

henge_fuzz::program!("machine");
