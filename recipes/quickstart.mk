# The main job on scikit-learn's 1,797 handwritten digits: learn from the digits 0 to 4, search
# among 5 to 9, which the network never saw. About a minute on two cores.
QUICK := $(RUN)/quickstart
QUICK_MODEL := --arch resnet10t --image-size 32 --resize 32 --projection none --pooling avg --lr 1e-3
QUICK_AUGMENT := --augment affine:degrees=20,scale=0.25,shear=20,shift=0.12

quickstart: $(VENV)/installed
	mkdir -p $(QUICK)
	$(MLTOOL) embed pixels digits:test -o $(QUICK)/pixels.h5
	$(MLTOOL) train digits:train $(QUICK_MODEL) --epochs 0 -o $(QUICK)/untrained.safetensors
	$(MLTOOL) embed $(QUICK)/untrained.safetensors digits:test -o $(QUICK)/untrained.h5
	$(MLTOOL) train digits:train $(QUICK_MODEL) $(QUICK_AUGMENT) --loss proxy-anchor --epochs 30 -o $(QUICK)/trained.safetensors
	$(MLTOOL) embed $(QUICK)/trained.safetensors digits:test -o $(QUICK)/trained.h5
	for name in pixels untrained trained; do
	  echo "--- $$name"
	  $(MLTOOL) evaluate $(QUICK)/$$name.h5 --metrics precision@1,r_precision,map@r
	done
	$(MLTOOL) plot ranking $(QUICK)/trained.h5 -o $(QUICK)/ranking.png
	echo "the picture of queries and their nearest images: $(QUICK)/ranking.png"
