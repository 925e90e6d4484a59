//! Lists the devices of this machine, by the names that `--device` and `WGRAD_DEVICE` take.

use wgrad::Device;

fn main() {
    for device in Device::available() {
        println!("{device}");
    }
}
