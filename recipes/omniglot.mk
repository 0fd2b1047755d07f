# Omniglot: learn the characters of the 30 background alphabets (964 classes, 19,280 images), then
# retrieve those of the 20 evaluation alphabets (659 classes, 13,180 images), which the network
# never saw. ResNet-10-T from scratch at 32 px.
#   make -C recipes omniglot DATA=/path/to/omniglot [SEEDS="0 1 2"]
# Measured on 2 CPU cores: 12 epochs in 407 s; precision@1 82.4 %, MAP@R 48.9 % (seed 0).
# One line per finished run in results/omniglot.jsonl; runs that are there are skipped.
OMNI := $(RUN)/omniglot
OMNI_TABLE := $(CURDIR)/results/omniglot.jsonl
SEEDS ?= 0
RECORD := $(BIN)/python $(CURDIR)/record.py

.PHONY: omniglot
omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	mkdir -p $(OMNI)
	for seed in $(SEEDS); do
	  $(RECORD) --done $(OMNI_TABLE) run=resnet10t-32px seed=$$seed && continue
	  start=$$(date +%s)
	  $(MLTOOL) train omniglot:$(DATA):background -o $(OMNI)/model-$$seed.safetensors \
	    --arch resnet10t --image-size 32 --resize 32 --dim 128 --augment affine $(SCRATCH) --lr 1e-3 \
	    --epochs 12 --seed $$seed --resume
	  seconds=$$(($$(date +%s) - start))
	  $(MLTOOL) embed $(OMNI)/model-$$seed.safetensors omniglot:$(DATA):evaluation \
	    -o $(OMNI)/test-$$seed.h5
	  $(MLTOOL) evaluate $(OMNI)/test-$$seed.h5 --json \
	    | $(RECORD) $(OMNI_TABLE) run=resnet10t-32px seed=$$seed train_s=$$seconds
	done
	cat $(OMNI_TABLE)
