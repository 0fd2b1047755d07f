# Divide and conquer with the papers' settings: ResNet-50 from ImageNet weights, 224 px. On a GPU:
#   make -C recipes divide-cub200 DATA=/path/to/cub200          and -cars196, -sop, -inshop, -vehicleid
# What the authors report, in percent: CVPR 2019, 128-d (In-shop, SOP: paper; VehicleID: its program)
#   CUB        R@1 65.9  R@2 76.6  R@4 84.4  R@8 90.6   NMI 69.6
#   Cars       R@1 84.6  R@2 90.7  R@4 94.1  R@8 96.5
#   SOP        R@1 75.9  R@10 88.4  R@100 94.9
#   In-shop    R@1 85.7  R@10 95.5  R@20 96.9  R@30 97.5
#   VehicleID  R@1 91.54 (the large list, as far as its settings tell)
# TPAMI 2021, 512-d, the best runs of its program:
#   CUB        learned masks  R@1 67.71  R@2 78.14  R@4 85.80  R@8 91.46   NMI 69.84
#              fixed masks    R@1 67.39  R@2 77.43  R@4 84.82  R@8 90.83   NMI 68.60
#   Cars       fixed masks    R@1 87.22  R@2 92.19  R@4 95.39  R@8 97.43   NMI 70.57
#              learned masks  R@1 86.90  R@2 92.34  R@4 95.41  R@8 97.45   NMI 70.10
#   In-shop    learned masks  R@1 90.49  R@10 97.48  R@20 98.23  R@30 98.51   NMI 89.88
#   SOP        learned masks  R@1 79.80  R@10 90.46  R@100 95.26   NMI 89.68
#   VehicleID  fixed masks    R@1 94.01  R@5 96.18   NMI 90.78 (large)
# Theirs is the best epoch on the test data, here the last one counts. Their program swaps clusters
# when it matches them for K above 2, and divides the margin loss otherwise; neither is repeated here.
# Published: batches of 80 with 4 images a class (2021: 2), Adam at a constant 1e-5, decay 1e-4, new
# clusters every 2 epochs, the whole vector from epoch 80, one cluster from 190 of 200 (2021: never,
# of 180), K 4 on CUB and 8 elsewhere; masks at 1e-3, orthogonality 0.01, the backbone frozen for one
# epoch in two, 32 masks on SOP. Not published, and ours: the number of masks elsewhere, and that CUB
# and Cars take as many epochs. Ours too: AdamW, whose decay is apart from the gradient.
PAPER_SEEDS ?= 0
PAPER_NETWORK ?= --arch resnet50 --weights timm
PAPER_SIZES ?= --image-size 224 --resize 256
PAPER_OPTIONS ?= --freeze-bn --batch-size 80 --schedule constant --weight-decay 1e-4 --lr-backbone 1e-5
PAPER_2019 ?= epochs=200 round=2 full=80 merge=190
PAPER_2021 ?= epochs=180 round=2 full=80 merge=180
PAPER_MASKS ?= learn=true,orthogonality=0.01,freeze_epochs=1,lr=1e-3

# $(1) benchmark, $(2) training and $(3) test data, $(4) slices, $(5) masks, $(6) metrics
define DIVIDE_PAPER
test -d "$(DATA)" || { echo "DATA=/path/to/$(1) is needed" >&2; exit 2; }
lab=($(2)) test=($(3)) view=(--penultimate)
lr=1e-5 learned=$(PAPER_MASKS) masks=$(5) least=$(or $(PAPER_LEAST),8)
network=($(PAPER_NETWORK) $(PAPER_SIZES) --pooling avg --projection linear)
$(call DIVIDE_STEPS,$(DIVIDE)/$(1)-2019,$(DIVIDE_TABLES)/divide_$(1).jsonl,$(PAPER_OPTIONS) --images-per-class 4)
from=("$${network[@]}" --dim $(or $(PAPER_DIM),128)) $(PAPER_2019)
for seed in $(PAPER_SEEDS); do
  for kind in margin slices-$(4); do row $$kind; done
done
$(call DIVIDE_STEPS,$(DIVIDE)/$(1)-2021,$(DIVIDE_TABLES)/divide_$(1).jsonl,$(PAPER_OPTIONS) --images-per-class 2)
from=("$${network[@]}" --dim $(or $(PAPER_DIM),512)) $(PAPER_2021)
for seed in $(PAPER_SEEDS); do
  for kind in masks-fixed masks-learn; do row $$kind; done
done
$(TABLE) $(DIVIDE_TABLES)/divide_$(1).jsonl --metrics $(6)
endef

divide-cub200 divide-cars196: DIVIDE_METRICS = recall@1,recall@2,recall@4,recall@8,nmi,map@r
divide-sop: DIVIDE_METRICS = recall@1,recall@10,recall@100,nmi,map@r
divide-inshop: DIVIDE_METRICS = recall@1,recall@10,recall@20,recall@30,nmi,map@r
divide-vehicleid: DIVIDE_METRICS = recall@1,recall@5,nmi,map@r
PAPER_FIRST := recall@1,nmi,map@r

.PHONY: divide-cub200 divide-cars196 divide-sop divide-inshop divide-vehicleid
divide-cub200 divide-cars196: divide-%: $(VENV)/installed
	$(call DIVIDE_PAPER,$*,$*:$(DATA):train,$*:$(DATA):test,$(or $(PAPER_K),4),$(or $(PAPER_K),4),$(PAPER_FIRST))

divide-sop: $(VENV)/installed
	$(call DIVIDE_PAPER,sop,sop:$(DATA):train,sop:$(DATA):test,$(or $(PAPER_K),8),$(or $(PAPER_K),32),$(PAPER_FIRST))

divide-inshop: $(VENV)/installed
	$(call DIVIDE_PAPER,inshop,inshop:$(DATA):train,inshop:$(DATA):query inshop:$(DATA):gallery,$(or $(PAPER_K),8),$(or $(PAPER_K),8),$(PAPER_FIRST))

# The large list, 2,400 vehicles; VEHICLES=800 and 1600 are the others. All images search all others.
VEHICLES ?= 2400
divide-vehicleid: $(VENV)/installed
	$(call DIVIDE_PAPER,vehicleid,vehicleid:$(DATA):train,vehicleid:$(DATA):test-$(VEHICLES),$(or $(PAPER_K),8),$(or $(PAPER_K),8),$(PAPER_FIRST))
