# Every loss with its paper's settings, trained alike: which one to start with?
#   make -C recipes losses-caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes losses-omniglot DATA=/path/to/omniglot
# Caltech-101: MobileNetV2 (ImageNet weights), first 50 classes -> last 50, 64 px, 3 epochs.
# Omniglot: ResNet-10-T from scratch, background -> evaluation alphabets, 32 px, 2 epochs.
# About 70 s of training a row on 2 CPU cores, 25 rows each; then two more seeds of the best five.
# A row is LOSS or LOSS/MINER. Nothing is tuned: one learning rate for all, the settings of the
# papers, and the last weights. Measured on 2 CPU cores: see RESULTS.md.
# One line per finished run in results/losses_*.jsonl; runs that are there are skipped.
LOSS_ROWS ?= arcface binomial-deviance circle contrastive contrastive:form=squared,margin=0.7 \
  cosface fastap generalized-lifted-structure info-nce lifted-structure \
  margin:learn=class/distance-weighted multi-similarity multi-similarity/multi-similarity \
  mutual-information n-pair nca normalized-softmax nt-xent proxy-anchor proxy-nca proxy-nca-pp \
  nca:scale=8 proxy-nca:scale=8 soft-triple supcon triplet triplet/distance-weighted triplet:mining=semi-hard
TABLE := $(BIN)/python $(CURDIR)/table.py

# $(1) table, $(2) training data and network, $(3) test data, $(4) baseline and $(5) its words for
# embed: train, embed and evaluate every row
define LOSS_LOOP
mkdir -p $(RUN)/losses
if ! $(RECORD) --done $(1) run=$(4); then
  $(MLTOOL) embed $(5) -q -o $(RUN)/losses/$(notdir $(1)).h5
  $(MLTOOL) evaluate $(RUN)/losses/$(notdir $(1)).h5 --json -q | $(RECORD) $(1) run=$(4)
fi
run() {
  local row=$$1 seed=$$2 loss=$${1%/*} miner=() start=$$(date +%s)
  $(RECORD) --done $(1) "run=$$row" seed=$$seed && return
  if [[ $$row == */* ]]; then miner=(--miner "$${row##*/}"); fi
  $(MLTOOL) train $(2) --loss "$$loss" "$${miner[@]}" --seed $$seed -q \
    -o $(RUN)/losses/$(notdir $(1)).safetensors
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) embed $(RUN)/losses/$(notdir $(1)).safetensors $(3) -q -o $(RUN)/losses/$(notdir $(1)).h5
  $(MLTOOL) evaluate $(RUN)/losses/$(notdir $(1)).h5 --json -q \
    | $(RECORD) $(1) "run=$$row" seed=$$seed train_s=$$seconds
}
for row in $(LOSS_ROWS); do run $$row 0; done
for row in $$($(TABLE) $(1) --best 5); do run $$row 1; run $$row 2; done
$(TABLE) $(1)
endef

.PHONY: losses-caltech101 losses-omniglot
losses-caltech101: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/caltech101 is needed" >&2; exit 2; }
	test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
	$(call LOSS_LOOP,$(CURDIR)/results/losses_caltech101.jsonl,$(DATA) --classes 0-49 \
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 64 --resize 73 \
	  $(PRETRAINED) --lr 1e-3 --epochs 3,$(DATA) --classes 50-99,frozen,mobilenetv2_100 $(DATA) \
	  --classes 50-99 --weights $(WEIGHTS) --image-size 64 --resize 73)

losses-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	$(call LOSS_LOOP,$(CURDIR)/results/losses_omniglot.jsonl,omniglot:$(DATA):background \
	  --arch resnet10t --image-size 32 --resize 32 --dim 128 --augment affine $(SCRATCH) --lr 1e-3 \
	  --epochs 2,omniglot:$(DATA):evaluation,pixels,pixels omniglot:$(DATA):evaluation \
	  --image-size 32 --resize 32)
