#![no_main]

henge_fuzz::program!("shelf");
