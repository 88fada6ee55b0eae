/* loss.h - how far decoded weights are from the weights. */
#ifndef QN_QUANTIZE_LOSS_H
#define QN_QUANTIZE_LOSS_H

typedef struct qn__quantize_error {
  double error2, weight2; /* sums of squares: of weight - decoded, of the weights */
  double largest;         /* |weight - decoded| */
} qn__quantize_error;

#endif
