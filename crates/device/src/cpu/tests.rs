//! Tests of the CPU executor's memory: reuse, limits and counters. Each test has an executor of its own,
//! since the counters belong to the executor.

use super::Cpu;
use crate::kernel::{Access, BinaryOp, Instr, Kernel, Loop, Store};
use crate::{DType, Error, Executor};
use smallvec::smallvec;

#[test]
fn memory_returns_to_the_pool_and_is_used_again() {
    let cpu = Cpu::new();
    for bytes in [0, 1, 12, 1000, 4096, 1 << 20, 10_000_000] {
        drop(cpu.alloc(bytes).unwrap());
        let before = cpu.stats();
        for _ in 0..10 {
            let buffer = cpu.alloc(bytes).unwrap();
            assert_eq!(buffer.bytes(), bytes);
            assert_eq!(cpu.stats().bytes_in_use, bytes as u64);
        }
        let after = cpu.stats();
        assert_eq!(after.buffers_requested, before.buffers_requested, "{bytes}");
        assert_eq!((after.bytes_in_use, after.bytes_pooled), (0, before.bytes_pooled));
    }
    assert!(cpu.stats().bytes_pooled >= 10_000_000);
    cpu.trim();
    assert_eq!(cpu.stats().bytes_pooled, 0);
    assert_eq!(cpu.stats().bytes_peak, 10_000_000);
    cpu.reset_peak();
    assert_eq!(cpu.stats().bytes_peak, 0);
}

#[test]
fn a_limit_is_kept_and_the_program_goes_on() {
    let cpu = Cpu::new();
    cpu.set_memory_limit(Some(1_000_000));
    let kept = cpu.upload(&[7; 600_000]).unwrap();
    let refused = cpu.alloc(400_001);
    assert_eq!(
        refused.map(|_| ()),
        Err(Error::OutOfMemory { requested: 400_001, used: 600_000, limit: 1_000_000 })
    );
    // Requests below the limit still succeed, also where the pool must first free a block.
    drop(cpu.alloc(300_000).unwrap());
    drop(cpu.alloc(400_000).unwrap());
    drop(cpu.alloc(200_000).unwrap());
    assert!(cpu.stats().bytes_in_use + cpu.stats().bytes_pooled <= 1_000_000);
    let mut bytes = [0; 10];
    cpu.download(&kept, 599_990, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 10]);
    assert!(matches!(cpu.download(&kept, 599_991, &mut bytes), Err(Error::Argument { .. })));
    assert!(matches!(cpu.download(&kept, usize::MAX, &mut bytes), Err(Error::Argument { .. })));
    cpu.set_memory_limit(None);
    assert!(cpu.alloc(400_001).is_ok());
}

#[test]
fn what_no_machine_has_is_an_error() {
    let cpu = Cpu::new();
    for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
        assert!(matches!(cpu.alloc(bytes), Err(Error::OutOfMemory { .. })), "{bytes}");
    }
    assert_eq!(cpu.stats().bytes_in_use, 0);
    assert!(cpu.alloc(100).is_ok());
}

#[test]
fn launches_and_preparations_are_counted() {
    let cpu = Cpu::new();
    let double = |n: usize, dtype: DType| {
        let access = |buffer| Access::new(buffer, dtype, &[1], 0);
        Kernel::Loop(Loop {
            sizes: smallvec![n],
            inner: 0,
            accesses: vec![access(0), access(1)],
            ranges: vec![],
            body: vec![
                Instr::Load { access: 0, indices: smallvec![] },
                Instr::Binary { op: BinaryOp::Add, a: 0, b: 0 },
            ],
            stores: vec![Store { access: 1, value: 1 }],
        })
    };
    let prepared = cpu.prepare(&double(10, DType::F32)).unwrap();
    assert_eq!((cpu.stats().pipelines_compiled, cpu.stats().pipeline_hits), (1, 0));
    cpu.prepare(&double(10, DType::F32)).unwrap();
    cpu.prepare(&double(20, DType::F32)).unwrap();
    assert_eq!((cpu.stats().pipelines_compiled, cpu.stats().pipeline_hits), (1, 2));
    cpu.prepare(&double(10, DType::F64)).unwrap();
    assert_eq!((cpu.stats().pipelines_compiled, cpu.stats().pipeline_hits), (2, 2));
    let (x, y) = (cpu.upload(&[0; 40]).unwrap(), cpu.alloc(40).unwrap());
    for _ in 0..3 {
        prepared.launch(&[&x, &y], &[]).unwrap();
    }
    let stats = cpu.stats();
    assert_eq!((stats.dispatches, stats.bytes_read, stats.bytes_written, stats.submits), (3, 120, 120, 0));
    cpu.flush().unwrap();
    cpu.synchronize().unwrap();
}
