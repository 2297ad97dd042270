from mmjax.plan import hlo

# Cut down from what the compiler of TPUs wrote.
TEXT = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

FileNames
1 "step.py"

%body (p.1: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %p.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p.1), index=1
  %tanh.1 = bf16[8,128]{1,0:T(8,128)(2,1)} tanh(%x), metadata={op_name="a (b)"}
  ROOT %out = (s32[]{:T(128)}, /*index=1*/bf16[8,128]{1,0}) tuple(%i, %tanh.1)
}

%condition (p.2: (s32[], bf16[8,128])) -> pred[] {
  %p.2 = (s32[], bf16[8,128]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(6)
  %j = s32[] get-tuple-element(%p.2), index=0
  ROOT %lt = pred[] compare(%j, %bound), direction=LT
}

ENTRY %main.5_spmd (param.4: f32[4]) -> (s32[], bf16[8,128]) {
  %param.4 = f32[4]{0} parameter(0), sharding={devices=[1,4]<=[4]}
  %start = (s32[], bf16[8,128]{1,0}) custom-call(%param.4)
  ROOT %while.1 = (s32[], bf16[8,128]{1,0}) while(%start), condition=%condition, body=%body
}
"""  # noqa: E501


def test_instructions_are_read_with_their_types():
  module = hlo.parse(TEXT)

  assert list(module.computations) == ["body", "condition", "main.5_spmd"]
  assert module.entry == "main.5_spmd"
  tanh = module.computations["body"]["tanh.1"]
  assert (tanh.opcode, tanh.operands) == ("tanh", ("x",))
  assert tanh.arrays == (hlo.Array("bf16", (8, 128), 0),)
  assert tanh.arrays[0].bytes == 2 * 8 * 128
  assert module.operands("body", tanh)[0].arrays[0].space == 1
  assert module.root("body").operands == ("i", "tanh.1")
  assert len(module.root("body").arrays) == 2
  assert module.computations["main.5_spmd"]["while.1"].called == ("body",)


def test_a_loop_runs_as_often_as_its_condition_says():
  runs = {
    e.instruction.name: (e.times, e.loop) for e in hlo.walk(hlo.parse(TEXT))
  }

  assert runs["tanh.1"] == (6, "body")
  assert runs["param.4"] == (1, "")
  assert "lt" not in runs


def test_a_loop_that_counts_by_two_runs_half_as_often():
  # As the partitioner unrolls a product that travels round a ring.
  tanh = "  %tanh.1 ="
  text = TEXT.replace(
    tanh,
    "  %two = s32[]{:T(128)} constant(2)\n"
    "  %grown = s32[]{:T(128)} add(%i, %two)\n" + tanh,
  ).replace("tuple(%i, %tanh.1)", "tuple(%grown, %tanh.1)")

  def trips(bound):
    module = hlo.parse(text.replace("constant(6)", f"constant({bound})"))
    return hlo.trip_count(module, module.computations["main.5_spmd"]["while.1"])

  assert (trips(6), trips(7), trips(8)) == (3, 4, 4)


def test_a_loop_runs_as_often_as_the_compiler_says():
  known = 'body=%body, backend_config={"known_trip_count":{"n":"24"}}'
  module = hlo.parse(TEXT.replace("body=%body", known))

  loop = module.computations["main.5_spmd"]["while.1"]

  assert hlo.trip_count(module, loop) == 24


def test_bytes_of_dtypes():
  sizes = {"f32": 4, "bf16": 2, "pred": 1, "s8": 1, "f8e4m3fn": 1, "u4": 0.5}

  for dtype, size in sizes.items():
    assert hlo.Array(dtype, (3, 5)).bytes == 15 * size, dtype


def test_a_loop_within_a_loop_runs_as_often_as_both():
  outer = """\
%outer (p.9: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %p.9 = (s32[], bf16[8,128]{1,0}) parameter(0)
  ROOT %while.9 = (s32[], bf16[8,128]{1,0}) while(%p.9), condition=%condition, body=%body
}

"""  # noqa: E501
  head, entry, tail = TEXT.partition("ENTRY")
  known = 'body=%outer, backend_config={"known_trip_count":{"n":"5"}}'
  module = hlo.parse(head + outer + entry + tail.replace("body=%body", known))

  runs = {e.instruction.name: (e.times, e.loop) for e in hlo.walk(module)}

  assert runs["tanh.1"] == (5 * 6, "body")


def test_what_is_called_within_a_loop_runs_as_often_and_belongs_to_it():
  called = "".join(
    f"%{name} (q: bf16[8,128]) -> bf16[8,128] {{\n"
    "  %q = bf16[8,128]{1,0} parameter(0)\n"
    f"  ROOT %{name}.1 = bf16[8,128]{{1,0}} negate(%q)\n}}\n\n"
    for name in ("one", "two", "three", "four")
  )
  tanh = "  %tanh.1 ="
  text = TEXT.replace("%body (p.1", called + "%body (p.1", 1).replace(
    tanh,
    "  %c = bf16[8,128]{1,0} call(%x), to_apply=%one\n"
    "  %b = bf16[8,128]{1,0} conditional(%i, %x, %x), "
    "branch_computations={%two, %three}\n"
    "  %a = ((bf16[8,128]{1,0}), bf16[8,128]{1,0}) async-start(%x), "
    "calls=%four\n" + tanh,
  )

  runs = {
    e.instruction.name: (e.times, e.loop) for e in hlo.walk(hlo.parse(text))
  }

  for name in ("one", "two", "three", "four"):
    assert runs[f"{name}.1"] == (6, "body"), name
