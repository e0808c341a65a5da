"""Ready-made and user-made experiments, written to run directories.

An experiment of your own takes a module, data, and the methods that are to share them::

    import probbnn as pb

    methods = {"map": pb.MethodRun(), "psgld": pb.MethodRun(num_steps=20_000)}
    mine = pb.Experiment("mine", MyModule(), (x, y), (x_test, y_test), methods, ood={"far": x_far})
    pb.run(mine, out="runs/mine")

- `experiment`, `presets`: what an experiment is; the ready-made ones, and `customise` for the
  command line's changes to them
- `setup`, `examples`: an experiment made real, and checked
- `method`, `loop`: one method, and all of them in turn; `memory` while they run
- `evaluation`: what is measured of their predictions
- `run`, `compare`: the two things to do with them; `equality` and `reference` are for `compare`
- `records`, `record`, `directory`: what is written, and how it is read
"""
