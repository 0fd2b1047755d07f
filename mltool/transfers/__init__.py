"""One file = one loss between a student's and a teacher's vectors: `f(student, teacher) -> scalar`.

`student` [B, D_s] and `teacher` [B, D_t] are the vectors of the same B images by two models; no
gradient reaches the teacher. Half precision is widened, so the value is float32 at least. Constants
of the file say what a transfer needs of its caller:

* `INPUT`, "raw" or "unit": whether the formula is published for the student's vectors before
  normalisation, or for unit vectors.
* `NEEDS`, the set of further keyword arguments (empty: none):
  "maps": `student_maps` and `teacher_maps`, sequences of feature maps [B, C, H, W], one per stage;
  "penultimate": `student` and `teacher` are the pooled features before the projection;
  "index": `index` [B], the rows of the image list that the batch holds;
  "labels": `labels` [B], class indices, -1 = unknown.

A transfer with parameters or a memory is an `nn.Module` in CamelCase. It asks by name for
`student_dim`, `teacher_dim` (lengths of the vectors it gets), `student_channels`,
`teacher_channels` (one number per stage), `images` (rows of the image list) and `generator` (a CPU
`torch.Generator` that the caller seeds before the module is built, and by seed and step before it
is called, so that all ranks draw the same).
"""
