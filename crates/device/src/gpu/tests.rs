//! Tests of failures of the driver: a device that is lost at any moment, and work that is refused. They run
//! on every adapter present.

use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::smallvec;

use super::adapter::{Adapter, adapters};
use super::pipeline::ShaderSource;
use super::stream::{Binding, EncodedDispatch};
use super::*;
use crate::kernel::{Access, Instr, Loop, Store, UnaryOp};
use crate::{DType, Device, DeviceOptions, Element};

/// A device that only the test uses, and its shared state.
struct Own {
    device: Device,
    shared: Arc<GpuShared>,
}

impl Own {
    fn open(adapter: &Adapter) -> Own {
        let gpu = adapter.executor(&DeviceOptions::default()).unwrap();
        let shared = gpu.shared.clone();
        Own { device: Device::from_executor(adapter.name(), Box::new(gpu)), shared }
    }

    /// Destroys the device. Its loss is noticed at the next call of the driver.
    fn destroy(&self) {
        let _turn = self.shared.turn();
        self.shared.device.destroy();
    }

    /// Destroys the device and lets it notice.
    fn lose(&self) {
        self.destroy();
        let _turn = self.shared.turn();
        let _ = self.shared.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None });
        assert!(self.shared.failures.alive().is_err());
    }

    fn executor(&self) -> &dyn Executor {
        self.device.executor()
    }

    /// Asserts that a call failed because the device was lost, and that the message names the device and says
    /// what to do.
    fn assert_lost<T>(&self, what: &str, result: Result<T>) {
        match result {
            Err(error @ Error::DeviceLost { .. }) => {
                let text = error.to_string();
                assert!(text.contains(self.device.name()) && text.contains("open it again"), "{text}");
            }
            Err(other) => panic!("{what} on {}: {other}", self.device),
            Ok(_) => panic!("{what} on {} went well", self.device),
        }
    }
}

fn each(test: impl Fn(&Adapter, Own)) {
    for adapter in adapters() {
        test(adapter, Own::open(adapter));
    }
}

/// The kernel `out[i] = op(x[i])` over `n` elements.
fn map(op: UnaryOp, n: usize) -> Kernel {
    let access = |buffer| Access::new(buffer, DType::I32, &[1], 0);
    Kernel::Loop(Loop {
        sizes: smallvec![n],
        inner: 0,
        accesses: vec![access(0), access(1)],
        ranges: vec![],
        body: vec![Instr::Load { access: 0, indices: smallvec![] }, Instr::Unary { op, a: 0 }],
        stores: vec![Store { access: 1, value: 1 }],
    })
}

const N: usize = 1000;

fn ones() -> Vec<u8> {
    i32::to_bytes(&[1; N]).to_vec()
}

/// Asserts that the buffer holds `-1` for each of the ones.
fn check_negated(executor: &dyn Executor, buffer: &Buffer) {
    let mut out = [0; 4 * N];
    executor.download(buffer, 0, &mut out).unwrap();
    assert!(i32::from_bytes(&out).iter().all(|&x| x == -1));
}

#[test]
fn every_call_on_a_lost_device_says_so() {
    each(|adapter, own| {
        let executor = own.executor();
        let others = [Device::cpu(), Own::open(adapter).device];
        let elsewhere = others.each_ref().map(|device| {
            let executor = device.executor();
            let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 * N).unwrap());
            let negate = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
            negate.launch(&[&x, &y], &[]).unwrap();
            y
        });
        let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 * N).unwrap());
        let negate = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
        negate.launch(&[&x, &y], &[]).unwrap();
        check_negated(executor, &y);
        own.lose();
        for _ in 0..2 {
            own.assert_lost("upload", executor.upload(&ones()));
            own.assert_lost("upload of nothing", executor.upload(&[]));
            own.assert_lost("alloc", executor.alloc(4 * N));
            own.assert_lost("alloc of a page", executor.alloc(1 << 20));
            own.assert_lost("prepare", executor.prepare(&map(UnaryOp::Neg, N)).map(drop));
            own.assert_lost("prepare another", executor.prepare(&map(UnaryOp::Abs, N)).map(drop));
            own.assert_lost("launch", negate.launch(&[&x, &y], &[]));
            own.assert_lost("flush", executor.flush());
            own.assert_lost("synchronize", executor.synchronize());
            let mut out = [7; 4 * N];
            own.assert_lost("download", executor.download(&y, 0, &mut out));
            assert_eq!(out, [7; 4 * N], "a failed read leaves what it was to fill");
            own.assert_lost("download of nothing", executor.download(&y, 0, &mut []));
        }
        executor.trim();
        executor.set_memory_limit(Some(1 << 20));
        executor.reset_peak();
        assert!(executor.stats().bytes_in_use > 0);
        drop((x, y));
        assert_eq!(executor.stats().bytes_in_use, 0);
        executor.trim();
        drop(negate);
        for (device, y) in others.iter().zip(&elsewhere) {
            check_negated(device.executor(), y);
        }
    });
}

#[test]
fn a_device_lost_unnoticed_is_an_error_of_the_next_read() {
    /// A call that is made after the loss and before the value is read.
    type Step = fn(&Own, &dyn Prepared, &[&Buffer]);
    let steps: [Step; 6] = [
        |_, _, _| (),
        |own, _, _| drop(own.executor().upload(&ones())),
        |own, _, _| drop(own.executor().upload(&vec![1; 3 << 20])),
        |own, _, _| drop(own.executor().alloc(5 << 20)),
        |_, negate, buffers| drop(negate.launch(buffers, &[])),
        |own, _, _| drop(own.executor().flush()),
    ];
    for step in steps {
        for synchronized in [false, true] {
            for pending in [false, true] {
                each(|_, own| {
                    let executor = own.executor();
                    let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 * N).unwrap());
                    let negate = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
                    negate.launch(&[&x, &y], &[]).unwrap();
                    if !pending {
                        executor.synchronize().unwrap();
                    }
                    own.destroy();
                    step(&own, &*negate, &[&x, &y]);
                    let mut out = [7; 4 * N];
                    if synchronized {
                        own.assert_lost("synchronize", executor.synchronize());
                    } else {
                        own.assert_lost("download", executor.download(&y, 0, &mut out));
                    }
                    assert_eq!(out, [7; 4 * N]);
                });
            }
        }
    }
}

#[test]
fn buffers_and_kernels_outlive_a_lost_device() {
    each(|_, Own { device, shared }| {
        let executor = device.executor();
        let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 << 20).unwrap());
        let negate = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
        negate.launch(&[&x, &y], &[]).unwrap();
        let own = Own { device, shared };
        own.destroy();
        drop(own);
        // The value cannot be read any more.
        drop(negate.launch(&[&y, &x], &[]));
        drop(negate);
        drop((x, y));
    });
}

#[test]
fn a_loss_amid_the_work_of_many_threads_reaches_all_of_them() {
    each(|_, own| {
        let rounds = AtomicUsize::new(0);
        let work = |own: &Own| -> Result<()> {
            let executor = own.executor();
            let negate = executor.prepare(&map(UnaryOp::Neg, N))?;
            loop {
                let (x, y) = (executor.upload(&ones())?, executor.alloc(4 * N)?);
                for _ in 0..20 {
                    negate.launch(&[&x, &y], &[])?;
                }
                let mut out = [0; 4 * N];
                executor.download(&y, 0, &mut out)?;
                assert!(i32::from_bytes(&out).iter().all(|&x| x == -1));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&own))).collect();
            while rounds.load(Ordering::Relaxed) < 20 && threads.iter().any(|thread| !thread.is_finished()) {
                std::thread::yield_now();
            }
            // The device is destroyed without waiting for a turn, so at any moment.
            own.shared.device.destroy();
            for thread in threads {
                own.assert_lost("work", thread.join().unwrap());
            }
        });
    });
}

#[test]
fn a_lost_device_is_opened_anew_by_its_name() {
    each(|adapter, _| {
        let adapter = adapter.unopened();
        let first = adapter.device().unwrap();
        assert_eq!(first, adapter.device().unwrap());
        let failures = adapter.failures().unwrap();
        failures.lose("for a test");
        let second = adapter.device().unwrap();
        assert_ne!(first, second);
        assert_eq!(second, adapter.device().unwrap());
        assert!(matches!(first.synchronize(), Err(Error::DeviceLost { .. })));
        let executor = second.executor();
        let x = executor.upload(&[1, 2, 3]).unwrap();
        let mut out = [0; 3];
        executor.download(&x, 0, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3]);
    });
}

#[test]
fn a_panic_of_the_driver_is_the_loss_of_its_device() {
    each(|_, own| {
        let x = own.executor().upload(&ones()).unwrap();
        own.executor().synchronize().unwrap();
        // The callback runs while the next call waits, which is where wgpu panics if the device is lost
        // meanwhile.
        {
            let _turn = own.shared.turn();
            own.shared.queue.on_submitted_work_done(|| panic!("for a test, and caught"));
        }
        let failed = own.executor().synchronize();
        assert!(failed.as_ref().is_err_and(|error| error.to_string().contains("for a test")), "{failed:?}");
        own.assert_lost("synchronize", failed);
        own.assert_lost("download", own.executor().download(&x, 0, &mut [0; 4]));
        own.assert_lost("upload", own.executor().upload(&ones()));
    });
}

/// A kernel with one buffer, from this source.
fn source(wgsl: &str) -> ShaderSource {
    ShaderSource { wgsl: wgsl.to_owned(), bindings: 1, params_bytes: 16, internal: false }
}

#[test]
fn a_text_that_is_no_shader_is_an_error_of_its_own_call() {
    each(|_, own| {
        let refused = |text: &str| {
            let _turn = own.shared.turn();
            match own.shared.pipelines.shader(source(text)).map(drop) {
                Err(Error::Kernel { device, reason }) => {
                    assert_eq!(device, own.device.name());
                    assert!(!reason.is_empty());
                }
                other => panic!("{other:?}"),
            }
        };
        refused("fn main( {");
        refused("@compute @workgroup_size(1) fn other() {}");
        refused(
            "@group(0) @binding(9) var<storage, read_write> a: array<u32>;
            @compute @workgroup_size(1) fn main() { a[0] = 1u; }",
        );
        // No error is left over for another call.
        own.executor().synchronize().unwrap();
    });
}

#[test]
fn refused_work_is_an_error_of_the_next_read_and_of_no_other() {
    each(|_, own| {
        let executor = own.executor();
        let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 * N).unwrap());
        let negate = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
        for synchronized in [false, true] {
            {
                let _turn = own.shared.turn();
                let text = "@compute @workgroup_size(1) fn main() {}";
                let pipelines = &own.shared.pipelines;
                let pipeline = pipelines.get(&pipelines.shader(source(text)).unwrap()).unwrap();
                // More bytes than the buffer has.
                let block = own.shared.block(&x).unwrap();
                let binding = Binding { block, offset: 0, size: 1 << 40 };
                own.shared.stream().dispatch(
                    &own.shared,
                    EncodedDispatch {
                        pipeline: &pipeline,
                        bindings: &[binding],
                        words: &[0; 4],
                        groups: [1; 3],
                        checks_indices: false,
                    },
                );
            }
            executor.upload(&ones()).unwrap();
            executor.flush().unwrap();
            let mut out = [7; 4 * N];
            let failed =
                if synchronized { executor.synchronize() } else { executor.download(&x, 0, &mut out) };
            assert!(
                matches!(&failed, Err(Error::Kernel { device, .. }) if device == own.device.name()),
                "{failed:?}"
            );
            assert_eq!(out, [7; 4 * N]);
            executor.synchronize().unwrap();
            negate.launch(&[&x, &y], &[]).unwrap();
            check_negated(executor, &y);
        }
    });
}

/// The bound is kept, programs whose kernels were dropped still run, and programs that take turns stop
/// compiling after a while.
#[test]
fn compiled_kernels_are_kept_up_to_a_bound() {
    let ops = [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not];
    let results = [-1, 1, 1, -2];
    each(|_, own| {
        let executor = own.executor();
        let compiled = || executor.stats().pipelines_compiled;
        own.shared.pipelines.set_bound(0);
        let (x, y) = (executor.upload(&ones()).unwrap(), executor.alloc(4 * N).unwrap());
        let programs = ops.map(|op| executor.prepare(&map(op, N)).unwrap());
        assert_eq!((compiled(), own.shared.pipelines.kept()), (4, 1));
        let run = || {
            for (program, result) in programs.iter().zip(results) {
                program.launch(&[&x, &y], &[]).unwrap();
                let mut out = [0; 4 * N];
                executor.download(&y, 0, &mut out).unwrap();
                assert!(i32::from_bytes(&out).iter().all(|&x| x == result));
            }
        };
        // Each kernel that is compiled again raises the bound by its size, until all are kept.
        (0..4).for_each(|_| run());
        let before = compiled();
        assert!(before > 4);
        (0..4).for_each(|_| run());
        assert_eq!((compiled(), own.shared.pipelines.kept()), (before, 4));
        drop(programs);
        executor.trim();
        assert_eq!(own.shared.pipelines.kept(), 0);
        let again = executor.prepare(&map(UnaryOp::Neg, N)).unwrap();
        again.launch(&[&x, &y], &[]).unwrap();
        check_negated(executor, &y);
        assert!(again.bytes() > 0);
    });
}

#[test]
fn contexts_of_opengl_without_kernels_are_known_by_their_version() {
    use super::adapter::gl_has_kernels;
    for version in [
        "4.5 (Core Profile) Mesa 22.3.6",
        "4.6.0 NVIDIA 580.159.04",
        "OpenGL ES 3.1 v1.r32p1",
        "OpenGL ES 3.2 Mesa 24.0",
    ] {
        assert!(gl_has_kernels(version), "{version}");
    }
    for version in [
        "3.3.0 NVIDIA 580.159.04",
        "4.2.0 NVIDIA 580.159.04",
        "4.4 (Core Profile) Mesa 22.3.6",
        "4.1 Metal",
        "OpenGL ES 3.0 (ANGLE)",
        "2.1 Mesa",
        "",
    ] {
        assert!(!gl_has_kernels(version), "{version}");
    }
}
