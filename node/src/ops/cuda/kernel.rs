//! Kernels: what they take, and how they are compiled and started.

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage,
    Tensor,
    backend::{BackendDevice as _, BackendStorage as _},
    bail,
    cuda_backend::{
        CudaStorageSlice as Slice, WrapErr as _,
        cudarc::{
            driver::{CudaStream, DevicePtr as _, DevicePtrMut as _, LaunchConfig, PushKernelArg as _, SyncOnDrop},
            nvrtc,
        },
    },
};
use std::sync::OnceLock;

/// What the driver's compiler gets.
const SOURCE: &str = include_str!("kernels.cu");

/// Threads of a block, as in the source.
const THREADS: u32 = 256;

/// A kernel of the source, from tensors to one that is like the first of them.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Its name there, without the type behind it.
    name: String,
    over: Over,
    /// What its inputs are.
    takes: Vec<Takes>,
    /// Sizes that it takes besides that of [`Over`].
    sizes: Vec<usize>,
    numbers: Vec<f32>,
}

/// What a kernel's threads share out among themselves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// All values; it takes their count.
    Values,
    /// Rows of the last dimension; it takes their width.
    Rows,
}

/// What an input must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Values like the first input's: as many, of the same type.
    Same,
    /// So many f32.
    Numbers(usize),
    /// So many u32.
    Counts(usize),
}

impl Kernel {
    /// A kernel by its name, without sizes and numbers.
    pub(super) fn new(name: impl Into<String>, over: Over, takes: impl Into<Vec<Takes>>) -> Self {
        Self { name: name.into(), over, takes: takes.into(), sizes: Vec::new(), numbers: Vec::new() }
    }

    /// The same with sizes, in the order in which it takes them.
    pub(super) fn sizes(self, sizes: impl Into<Vec<usize>>) -> Self {
        Self { sizes: sizes.into(), ..self }
    }

    /// The same with numbers, in the order in which it takes them.
    pub(super) fn numbers(self, numbers: impl Into<Vec<f32>>) -> Self {
        Self { numbers: numbers.into(), ..self }
    }

    /// Computes with contiguous values.
    pub(super) fn run(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let Some((first, layout)) = inputs.first() else { bail!("a kernel without inputs") };
        let (device, shape, dtype) = (first.device(), layout.shape().clone(), first.dtype());
        self.check(inputs, shape.elem_count(), dtype)?;
        if shape.elem_count() == 0 {
            return Ok((device.zeros_impl(&shape, dtype)?, shape));
        }
        let name = match dtype {
            DType::F32 => format!("{}_f32", self.name),
            DType::BF16 => format!("{}_bf16", self.name),
            other => bail!("{} takes f32 and bf16 on a GPU, not {other:?}", self.name),
        };
        let width = layout.dims().last().copied().unwrap_or(1);
        let (size, blocks) = match self.over {
            Over::Values => (shape.elem_count(), shape.elem_count().div_ceil(THREADS as usize)),
            Over::Rows => (width, shape.elem_count() / width),
        };
        let Ok(blocks) = u32::try_from(blocks) else { bail!("{} of {shape:?} is too much for a GPU", self.name) };
        let sizes: Vec<usize> = [size].iter().chain(&self.sizes).copied().collect();
        let output = launch(device, (&name, blocks), inputs, (&shape, dtype), &sizes, &self.numbers)?;
        Ok((output, shape))
    }

    /// What the kernel may read must be there.
    fn check(&self, inputs: &[(&CudaStorage, &Layout)], count: usize, dtype: DType) -> Result<()> {
        let fits = |(takes, (storage, layout)): (&Takes, &(&CudaStorage, &Layout))| {
            let must = match takes {
                Takes::Same => (count, dtype),
                Takes::Numbers(count) => (*count, DType::F32),
                Takes::Counts(count) => (*count, DType::U32),
            };
            (layout.shape().elem_count(), storage.dtype()) == must && layout.contiguous_offsets().is_some()
        };
        match self.takes.len() == inputs.len() && self.takes.iter().zip(inputs).all(fits) {
            true => Ok(()),
            false => {
                let found: Vec<_> = inputs.iter().map(|(storage, layout)| (layout.dims(), storage.dtype())).collect();
                bail!("{} takes contiguous {:?} on a GPU, not {found:?}", self.name, self.takes)
            }
        }
    }

    /// Computes with one to three tensors, without a gradient.
    pub(super) fn apply(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        match inputs.iter().map(|input| input.contiguous()).collect::<Result<Vec<_>>>()?.as_slice() {
            [a] => a.apply_op1_no_bwd(self),
            [a, b] => a.apply_op2_no_bwd(b, self),
            [a, b, c] => a.apply_op3_no_bwd(b, c, self),
            _ => bail!("{} takes one to three tensors", self.name),
        }
    }

    /// Computes with the values of an operation's input and tensors that the operation holds.
    pub(super) fn run_with(&self, x: (&CudaStorage, &Layout), held: &[Tensor]) -> Result<(CudaStorage, Shape)> {
        let held = held.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
        let guards: Vec<_> = held.iter().map(Tensor::storage_and_layout).collect();
        let mut inputs = vec![x];
        for (storage, layout) in &guards {
            match &**storage {
                Storage::Cuda(storage) => inputs.push((storage, layout)),
                _ => bail!("what {} holds is not on the GPU of its input", self.name),
            }
        }
        self.run(&inputs)
    }
}

impl CustomOp1 for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{} is a GPU's", self.name)
    }

    fn cuda_fwd(&self, a: &CudaStorage, a_layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.run(&[(a, a_layout)])
    }
}

impl CustomOp2 for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{} is a GPU's", self.name)
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.run(&[(a, a_layout), (b, b_layout)])
    }
}

impl CustomOp3 for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("{} is a GPU's", self.name)
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
        c: &CudaStorage,
        c_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.run(&[(a, a_layout), (b, b_layout), (c, c_layout)])
    }
}

/// The kernels, compiled once for this process.
fn compiled() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || nvrtc::compile_ptx(SOURCE).map(|ptx| ptx.to_src()).map_err(|error| format!("{error:?}"));
    match PTX.get_or_init(compile) {
        Ok(ptx) => Ok(ptx),
        Err(error) => bail!("the GPU's kernels can't be compiled: {error}"),
    }
}

/// Starts `blocks` blocks of a kernel and gives its output, of this shape and type. Sizes and numbers must be those
/// that the kernel's declaration in the source lists, and inputs as large as it reads.
#[allow(unsafe_code)]
fn launch(
    device: &CudaDevice,
    (name, blocks): (&str, u32),
    inputs: &[(&CudaStorage, &Layout)],
    (shape, dtype): (&Shape, DType),
    sizes: &[usize],
    numbers: &[f32],
) -> Result<CudaStorage> {
    let function = device.get_or_load_custom_func(name, "heterotune", compiled()?)?;
    let stream = device.cuda_stream();
    // SAFETY: the kernel writes every value of it.
    let mut output = unsafe { device.alloc_uninit(shape, dtype)? };
    {
        // Each pointer comes with a guard that tells the driver, when it is dropped, that the memory has been used.
        let inputs = inputs.iter().map(|(storage, layout)| pointer(storage, layout.start_offset(), &stream));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let output = pointer_mut(&mut output, &stream)?;
        let mut arguments = function.builder();
        for (pointer, _) in inputs.iter().chain([&output]) {
            arguments.arg(pointer);
        }
        for size in sizes {
            arguments.arg(size);
        }
        for number in numbers {
            arguments.arg(number);
        }
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: `Kernel::check` has seen that the inputs are as many values, of the types, as the kernel declares and
        // reads; it writes no more than the values of the output.
        unsafe { arguments.launch(config) }.w()?;
    }
    Ok(output)
}

/// Where a storage's values begin in the GPU's memory, `start` values behind its beginning.
fn pointer<'a>(storage: &'a CudaStorage, start: usize, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    let (base, guard) = match &storage.slice {
        Slice::F32(values) => values.device_ptr(stream),
        Slice::BF16(values) => values.device_ptr(stream),
        Slice::U32(values) => values.device_ptr(stream),
        _ => bail!("a GPU's kernel takes f32, bf16 and u32 only"),
    };
    Ok((base + (start * storage.dtype().size_in_bytes()) as u64, guard))
}

/// The same, to be written.
fn pointer_mut<'a>(storage: &'a mut CudaStorage, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    match &mut storage.slice {
        Slice::F32(values) => Ok(values.device_ptr_mut(stream)),
        Slice::BF16(values) => Ok(values.device_ptr_mut(stream)),
        _ => bail!("a GPU's kernel makes f32 and bf16 only"),
    }
}
