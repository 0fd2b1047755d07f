# Omniglot: learn characters of the 30 background alphabets, retrieve those of the 20 evaluation
# alphabets, none of which the network saw.
#   make -C recipes omniglot DATA=/path/to/omniglot
OMNI := $(RUN)/omniglot

omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	mkdir -p $(OMNI)
	$(MLTOOL) train omniglot:$(DATA):background -o $(OMNI)/model.safetensors \
	  --arch resnet10t --image-size 32 --resize 32 --dim 128 --augment affine \
	  --epochs 12 --resume
	$(MLTOOL) embed $(OMNI)/model.safetensors omniglot:$(DATA):evaluation -o $(OMNI)/test.h5
	$(MLTOOL) evaluate $(OMNI)/test.h5
