# The bare command, `mltool train DATA --arch A --image-size S [--weights W]`, against the loop that a
# user of pytorch-metric-learning writes (plain_loop.py), with the same network, images and steps.
#   make -C recipes bare-grocery40 DATA=/path/to/grocery40 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes bare-caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes bare-omniglot DATA=/path/to/omniglot
# grocery40: even -> odd classes, Caltech-101: 0-49 -> 50-99, MobileNetV2 at 64 px, 5 epochs. Omniglot:
# background -> evaluation alphabets, ResNet-10-T from scratch at 32 px, 3 epochs.
# A row is `bare`, or plain/STATISTICS/RATE. All rows have seed 0; the bare command and the plain loop
# that is best with seed 0 have three. About 60 to 90 s of training a row on 2 CPU cores.
# One line per finished run in results/bare_*.jsonl; runs that are there are skipped.
BARE_SEEDS ?= 1 2
BARE_WEIGHTS ?= bare plain/batch/1e-3 plain/batch/1e-4 plain/frozen/1e-3 plain/frozen/1e-4
BARE_SCRATCH ?= bare plain/batch/1e-3 plain/batch/3e-3

# $(1) table, $(2) data and $(3) test data, $(4) classes and $(5) test classes, $(6) network, $(7) size,
# $(8) epochs, $(9) weights, $(10) rows
define BARE_LOOP
mkdir -p $(RUN)/bare
base=$(RUN)/bare/$(basename $(notdir $(1)))
weights=($(if $(9),--weights $(9)))
run() {
  local row=$$1 seed=$$2 start=$$(date +%s) statistics rate classes=($(if $(4),--classes $(4)))
  local words test=($(if $(5),--classes $(5)))
  $(RECORD) --done $(1) "run=$$row" seed=$$seed && return
  if [[ $$row == bare ]]; then
    $(MLTOOL) train $(2) "$${classes[@]}" --arch $(6) --image-size $(7) "$${weights[@]}" \
      --epochs $(8) --seed $$seed -q -o $$base.safetensors
    $(MLTOOL) embed $$base.safetensors $(3) "$${test[@]}" -q -o $$base.h5
  else
    IFS=/ read -r _ statistics rate <<< "$$row"
    words=($(if $(5),--test-classes $(5)) --size $(7) --epochs $(8) --lr $$rate --seed $$seed)
    if [[ $$statistics == frozen ]]; then words+=(--frozen); fi
    $(BIN)/python plain_loop.py $(2) $(3) "$${classes[@]}" --arch $(6) "$${weights[@]}" \
      "$${words[@]}" -o $$base.h5
  fi
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) evaluate $$base.h5 --json -q | $(RECORD) $(1) "run=$$row" seed=$$seed seconds=$$seconds
}
for row in $(10); do run $$row 0; done
rival=$$($(TABLE) $(1) --best 9 | grep --max-count=1 plain)
for seed in $(BARE_SEEDS); do
  for row in bare $$rival; do run $$row $$seed; done
done
$(TABLE) $(1)
endef

.PHONY: bare-grocery40 bare-caltech101 bare-omniglot
bare-grocery40 bare-caltech101: bare-%: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/$* is needed" >&2; exit 2; }
	test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
	$(call BARE_LOOP,$(CURDIR)/results/bare_$*.jsonl,$(DATA),$(DATA),$(BARE_LEARNED),$(BARE_TESTED),mobilenetv2_100,64,5,$(WEIGHTS),$(BARE_WEIGHTS))

bare-grocery40: BARE_LEARNED = $(EVEN_CLASSES)
bare-grocery40: BARE_TESTED = $(ODD_CLASSES)
bare-caltech101: BARE_LEARNED = 0-49
bare-caltech101: BARE_TESTED = 50-99

bare-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	$(call BARE_LOOP,$(CURDIR)/results/bare_omniglot.jsonl,omniglot:$(DATA):background,omniglot:$(DATA):evaluation,,,resnet10t,32,3,,$(BARE_SCRATCH))
