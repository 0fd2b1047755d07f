# From which the defaults of `train` were chosen: statistics of batch normalisation, projection,
# pooling and rate, from given weights and from scratch.
#   make -C recipes defaults-grocery40 DATA=/path/to/grocery40 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes defaults-caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes defaults-omniglot DATA=/path/to/omniglot
#   make -C recipes defaults-caltech101-scratch DATA=/path/to/caltech101
# All on training classes alone: grocery40 learns 15 of the 20 even-numbered classes and is tested on
# the other 5, Caltech-101 learns 0-34 and is tested on 35-49, Omniglot 0-699 and 700-963.
# MobileNetV2 at 64 px from ImageNet weights, 5 epochs; ResNet-10-T from scratch, 3 epochs at 32 px on
# Omniglot and 5 at 64 px on Caltech-101. The loss is the default, multi-similarity. About 60 s of training a row on 2 CPU cores.
# A row is START/STATISTICS/PROJECTION/POOLING/RATE, or with /EPOCHS of warm-up behind it (about 25
# steps); or it is START/untrained: the features as they are.
# One line per finished run in results/defaults_*.jsonl; runs that are there are skipped.
DEFAULTS_SEEDS ?= 0 1 2
DEFAULTS_WEIGHTS ?= frozen/none/gem/1e-3 frozen/none/gem/1.5e-3 frozen/none/gem/2e-3 \
  frozen/none/avg/1e-3 frozen/linear/gem/1e-3 frozen/linear/avg/1e-3 batch/linear/gem/1e-3 \
  batch/none/avg/1e-3 frozen/none/avg/3e-3 frozen/none/avg/3e-4 frozen/none/gem/3e-3 \
  frozen/linear/avg/3e-3 frozen/linear/avg/3e-4 untrained
DEFAULTS_SCRATCH ?= batch/linear/gem/1e-3 batch/linear/avg/1e-3 batch/none/avg/1e-3 \
  batch/none/gem/1e-3 batch/linear/gem/3e-3 batch/linear/avg/3e-3 batch/none/avg/3e-3 \
  batch/none/gem/3e-3 batch/linear/gem/1e-2 batch/linear/avg/1e-2 batch/linear/gem/3e-2 \
  batch/linear/gem/1e-2/0.17
DEFAULTS_SCRATCH_PHOTOS ?= batch/linear/gem/3e-3 batch/linear/gem/1e-2 batch/linear/gem/1e-2/1

# $(1) table, $(2) data, $(3) classes to learn, $(4) classes to test, $(5) start, $(6) its words,
# $(7) rows
define DEFAULTS_LOOP
mkdir -p $(RUN)/defaults
base=$(RUN)/defaults/$(basename $(notdir $(1)))
run() {
  local row=$$1 seed=$$2 start=$$(date +%s) statistics projection pooling rate warmup words
  $(RECORD) --done $(1) "run=$(5)/$$row" seed=$$seed && return
  IFS=/ read -r statistics projection pooling rate warmup <<< "$$row"
  if [[ $$row == untrained ]]; then
    words=(--projection none --pooling avg --epochs 0)
  else
    words=(--projection $$projection --pooling $$pooling --lr $$rate --warmup $${warmup:-0})
    [[ $$statistics == frozen ]] && words+=(--freeze-bn) || words+=(--no-freeze-bn)
  fi
  $(MLTOOL) train $(2) --classes $(3) $(6) --loss multi-similarity --seed $$seed "$${words[@]}" -q -o $$base.safetensors
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) embed $$base.safetensors $(2) --classes $(4) -q -o $$base.h5
  $(MLTOOL) evaluate $$base.h5 --json -q | $(RECORD) $(1) "run=$(5)/$$row" seed=$$seed train_s=$$seconds
}
for seed in $(DEFAULTS_SEEDS); do
  for row in $(7); do run $$row $$seed; done
done
$(TABLE) $(1)
endef

DEFAULTS_MOBILENET = --arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 64 --epochs 5
DEFAULTS_GROCERY := 0-0,2-2,4-4,8-8,10-10,12-12,16-16,18-18,20-20,24-24,26-26,28-28,32-32,34-34,36-36

.PHONY: defaults-grocery40 defaults-caltech101 defaults-omniglot defaults-caltech101-scratch
defaults-grocery40 defaults-caltech101: defaults-%: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/$* is needed" >&2; exit 2; }
	test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
	$(call DEFAULTS_LOOP,$(CURDIR)/results/defaults_$*.jsonl,$(DATA),$(DEFAULTS_LEARNED),$(DEFAULTS_TESTED),weights,$(DEFAULTS_MOBILENET),$(DEFAULTS_WEIGHTS))

defaults-grocery40: DEFAULTS_LEARNED = $(DEFAULTS_GROCERY)
defaults-grocery40: DEFAULTS_TESTED = 6-6$(comma)14-14$(comma)22-22$(comma)30-30$(comma)38-38
defaults-caltech101: DEFAULTS_LEARNED = 0-34
defaults-caltech101: DEFAULTS_TESTED = 35-49

defaults-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	$(call DEFAULTS_LOOP,$(CURDIR)/results/defaults_omniglot.jsonl,omniglot:$(DATA):background,0-699,700-963,scratch,--arch resnet10t --image-size 32 --epochs 3,$(DEFAULTS_SCRATCH))

defaults-caltech101-scratch: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/caltech101 is needed" >&2; exit 2; }
	$(call DEFAULTS_LOOP,$(CURDIR)/results/defaults_caltech101.jsonl,$(DATA),0-34,35-49,scratch,--arch resnet10t --image-size 64 --epochs 5,$(DEFAULTS_SCRATCH_PHOTOS))
