# Heads on cached vectors: a frozen MobileNetV2 (ImageNet weights, average pooling) embeds all images
# once, then each loss learns one linear layer 1280 -> 128 on the cached vectors, with five seeds.
#   make -C recipes heads-grocery40 DATA=/path/to/grocery40 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes heads-caltech101 DATA=/path/to/caltech101 WEIGHTS=...
# Classes are numbered in alphabetical order. grocery40: even -> odd classes, 128 px. Caltech-101:
# 0-49 -> 50-99, 112 px. A row is LOSS or LOSS/MINER, with the settings of its paper; all have the
# same epochs, rate and batch, and the last weights count.
# Epochs and rate were chosen once for both tables, on training classes that were held out (grocery40:
# every fourth training class, numbers 6, 14, 22, 30, 38; Caltech-101: 35-49 after training on 0-34),
# by the mean MAP@R of multi-similarity, info-nce and proxy-anchor at batch 64 and seed 0. Compared
# were epochs 3, 10, 30 x rates 1e-4, 3e-4, 1e-3 (grocery40), and 1, 3 x the same rates and 10 x 3e-4
# (Caltech-101). `untrained` is the layer as it starts.
# About 10 s of processor time a run, most of it imports; training takes 1 to 3 s of these.
# One line per finished run in results/heads_*.jsonl; runs that are there are skipped.
HEADS := $(RUN)/heads
HEAD_SEEDS ?= 0 1 2 3 4
EVEN_CLASSES := $(shell seq 0 2 38 | sed 's/.*/&-&/' | paste -sd,)
ODD_CLASSES := $(shell seq 1 2 39 | sed 's/.*/&-&/' | paste -sd,)

# $(1) data set, $(2) training classes, $(3) test classes, $(4) side and $(5) shorter side of images,
# $(6) epochs, $(7) rate
define HEAD_LOOP
test -d "$(DATA)" || { echo "DATA=/path/to/$(1) is needed" >&2; exit 2; }
test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
mkdir -p $(HEADS)
table=$(CURDIR)/results/heads_$(1).jsonl
embed() {
  $(MLTOOL) embed mobilenetv2_100 $(DATA) --classes $$1 --weights $(WEIGHTS) --pooling avg \
    --image-size $(4) --resize $(5) -q --resume -o $(HEADS)/$(1)_$$2.h5
}
embed $(2) train
embed $(3) test
$(RECORD) --done $$table run=frozen || $(MLTOOL) evaluate $(HEADS)/$(1)_test.h5 --json -q \
  | $(RECORD) $$table run=frozen
run() {
  local row=$$1 seed=$$2 words=(--loss "$${1%/*}") start=$$(date +%s) head=$(HEADS)/$(1)
  $(RECORD) --done $$table "run=$$row" seed=$$seed && return
  if [[ $$row == */* ]]; then words+=(--miner "$${row##*/}"); fi
  if [[ $$row == untrained ]]; then words=(--epochs 0); fi
  $(MLTOOL) train $(HEADS)/$(1)_train.h5 --arch vectors --dim 128 --projection linear \
    --epochs $(6) --lr $(7) --batch-size 64 --images-per-class 4 --optimizer adamw \
    --schedule cosine --weight-decay 1e-4 --threads 1 --seed $$seed "$${words[@]}" \
    -q -o $$head.safetensors
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) embed $$head.safetensors $(HEADS)/$(1)_test.h5 -q -o $$head.h5
  $(MLTOOL) evaluate $$head.h5 --json -q \
    | $(RECORD) $$table "run=$$row" seed=$$seed train_s=$$seconds
}
for seed in $(HEAD_SEEDS); do
  for row in untrained $(LOSS_ROWS); do run $$row $$seed; done
done
$(TABLE) $$table
endef

.PHONY: heads-grocery40 heads-caltech101
heads-grocery40: $(VENV)/installed
	$(call HEAD_LOOP,grocery40,$(EVEN_CLASSES),$(ODD_CLASSES),128,146,3,3e-4)

heads-caltech101: $(VENV)/installed
	$(call HEAD_LOOP,caltech101,0-49,50-99,112,128,3,3e-4)
