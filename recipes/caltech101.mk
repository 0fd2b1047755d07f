# Caltech-101: fine-tune on the first 50 classes in alphabetical order, retrieve among the last
# 50, which the network never saw; beside it the frozen backbone.
#   make -C recipes caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
CALTECH := $(RUN)/caltech101
WEIGHTS ?=
SEED ?= 0

caltech101: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/caltech101 is needed" >&2; exit 2; }
	mkdir -p $(CALTECH)
	$(MLTOOL) embed mobilenetv2_100 $(DATA) --classes 50-99 --weights $(WEIGHTS) \
	  --image-size 112 --resize 128 -o $(CALTECH)/frozen.h5
	$(MLTOOL) train $(DATA) --classes 0-49 -o $(CALTECH)/model-$(SEED).safetensors \
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 112 --resize 128 \
	  --freeze-bn --epochs 8 --seed $(SEED) --resume
	$(MLTOOL) embed $(CALTECH)/model-$(SEED).safetensors $(DATA) --classes 50-99 \
	  -o $(CALTECH)/tuned-$(SEED).h5
	for name in frozen tuned-$(SEED); do
	  echo "--- $$name"
	  $(MLTOOL) evaluate $(CALTECH)/$$name.h5
	done
